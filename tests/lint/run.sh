#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every rule; the last line counts them. Before that each rule has to find what is planted for it: a rule that
# cannot fail proves nothing.
cd "$(dirname "$0")/../.." || exit 2
LINT_DIR=$PWD/tests/lint
export LINT_DIR
passed=0 failed=0
check() { # NAME COMMAND…
    name=$1
    shift
    if out=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok      lint: $name"
    else
        failed=$((failed + 1))
        echo "FAILED  lint: $name"
        printf '%s\n' "$out" | head -n 60 | sed 's/^/        /'
    fi
}
check "the rules find what is planted" "$LINT_DIR/selftest.sh"
for rule in functions includes subjects files format; do check $rule "$LINT_DIR/$rule.sh"; done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
