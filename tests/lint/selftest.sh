#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Plants one violation at a time in an otherwise clean small tree and expects the rule to name its file.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
LINT_DIR=${LINT_DIR:-$PWD/tests/lint}
export LINT_DIR
spdx='/* SPDX-License-Identifier: Apache-2.0 */'
rc=0

fresh() {
    rm -rf "$tmp/t"
    mkdir -p "$tmp/t/common/base" "$tmp/t/common/rt" "$tmp/t/proto" "$tmp/t/services/a/in" "$tmp/t/services/b" "$tmp/t/services/edge/flow" "$tmp/t/services/edge/limits" "$tmp/t/tests" \
        "$tmp/t/compose" "$tmp/t/docs"
    cp "$LINT_DIR/../../.clang-format" "$tmp/t/"
    printf '%s\n#include <stdio.h>\n/* strcpy( in a comment */\nconst char *x = "sprintf( in a string";\n' "$spdx" >"$tmp/t/common/base/ok.c"
    printf '%s\n' "$spdx" >"$tmp/t/common/base/ok.h"
    printf '%s\n/* clang-format off */\n    X(A_B, "a.b", NULL, "x", "y", "z") \\\n    X(C, "c.%%s", NULL, "x", "y", "z")\n' "$spdx" >"$tmp/t/proto/subjects.h"
    printf '# SPDX-License-Identifier: Apache-2.0\n"aigw.a.b" "aigw.c.*"\n' >"$tmp/t/compose/nats.conf"
    printf '| `aigw.a.b` | x |\n| `aigw.c.<namespace>` | y |\n' >"$tmp/t/docs/bus.md"
    printf '%s\n#include "base/ok.h"\n#include "own.h"\n#include <sqlite3.h>\n' "$spdx" >"$tmp/t/services/a/a.c"
    printf '%s\n' "$spdx" | tee "$tmp/t/services/a/own.h" >"$tmp/t/services/a/in/part.h"
    printf '%s\n#include "in/part.h"\n#include "own.h"\n#include "part.h"\n' "$spdx" >"$tmp/t/services/a/in/part.c"
    printf '%s\n#include "base/ok.h"\n' "$spdx" >"$tmp/t/services/b/b.c"
    printf '%s\n' "$spdx" | tee "$tmp/t/services/edge/flow/flow.h" >"$tmp/t/services/edge/limits/lease.h"
    printf '%s\n' "$spdx" >"$tmp/t/services/edge/edge.h"
    printf '%s\n#include "edge.h"\n#include "limits/lease.h"\n' "$spdx" >"$tmp/t/services/edge/flow/flow.c"
    printf '%s\n#include "edge.h"\n#include "flow/flow.h"\n' "$spdx" >"$tmp/t/services/edge/main.c"
    printf '%s\n#include "lease.h"\n' "$spdx" >"$tmp/t/services/edge/limits/lease.c"
}
plant() { # RULE FILE TEXT
    fresh
    printf '%s\n' "$3" >>"$tmp/t/$2"
    out=$("$LINT_DIR/$1.sh" "$tmp/t" 2>&1) && { echo "$1 does not notice in $2: $3"; rc=1; return; }
    case $out in *"${4:-$2}"*) ;; *) echo "$1 does not name ${4:-$2}: $out"; rc=1 ;; esac
}

fresh
for rule in functions includes subjects files format; do
    out=$("$LINT_DIR/$rule.sh" "$tmp/t" 2>&1) || { echo "$rule complains about a clean tree: $out"; rc=1; }
done
plant functions services/b/b.c 'int f(char *d) { return sprintf(d, "x"); }'
plant functions services/b/b.c 'int f(char *d) { return atoi (d); }'
plant functions common/base/ok.c 'void f(void) { exit(1); }'
plant functions services/b/b.c 'void f(void) { usleep(1); }'
plant functions services/b/b.c 'typedef struct { int a; } t;'
plant includes common/base/ok.c '#include <sqlite3.h>'
plant includes common/base/ok.c '#include "rt/bus.h"'
plant includes services/b/b.c '#include <sqlite3.h>'
plant includes services/b/b.c '#include "own.h"'
plant includes services/b/b.c '#include "in/part.h"'
plant includes services/a/a.c '#include "part.h"'
plant includes services/edge/limits/lease.c '#include "flow/flow.h"'
plant includes services/edge/limits/lease.c '#include "edge.h"'
plant includes services/edge/edge.h '#include "flow/flow.h"'
plant includes services/b/b.c '#include "../a/own.h"'
plant includes services/b/b.c '#include "services/a/own.h"'
plant includes services/a/own.h '#include <curl/curl.h>'
plant includes common/base/ok.c '#include <cmocka.h>'
plant subjects services/b/b.c 'const char *s = "aigw.a.b";'
plant subjects services/b/b.c 'const char *s = "%s.a.b";'
plant subjects services/b/b.c 'const char *s = "AIGW_USAGE";'
plant subjects proto/subjects.h '    X(D_E, "d.e", NULL, "x", "y", "z")' aigw.d.e
plant subjects proto/subjects.h '    X(D_E, "d.e", NULL, "x", "y", "z")' 'docs/bus.md: no row for aigw.d.e'
plant files services/b/c.c 'int x;'
plant files services/b/run.sh 'true'
plant files services/b/long.h "$spdx$(awk 'BEGIN { for (i = 0; i < 600; i++) print "" ; print "int x;" }')"
plant files tests/package-lock.json '"resolved": "x"'
plant format services/b/b.c 'int   f( void ){return 1 ;}'
exit $rc
