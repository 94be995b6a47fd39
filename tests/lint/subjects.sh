#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Subjects, streams and buckets are named in proto/subjects.h and nowhere else in the code; and whatever is named there
# has its place in the permissions of compose/nats.conf and a row in docs/bus.md.
cd "${1:-.}" || exit 2
here=${LINT_DIR:-$PWD/tests/lint}
table=proto/subjects.h
suffixes=$(sed -n 's/^ *X([A-Z_]*, *"\([^"]*\)".*/\1/p' $table)
[ -n "$suffixes" ] || { echo "$table: no table found"; exit 1; }

re='"(aigw\.|AIGW_(USAGE|CONFIG|CLAIMS)|KV_|\$KV\.|\$JS\.)'
for s in $suffixes; do
    s=$(printf %s "${s%.%s}" | sed 's/\./\\./g')
    # A bare word such as "presence" is a word; with a dot in it, it is a subject.
    case $s in *.*) re="$re|\"[^\" ]*$s[\"%.]" ;; esac
done
bad=$(
    files=$(find common services \( -name '*.c' -o -name '*.h' \) 2>/dev/null | grep -v '^common/rt/bus')
    [ -z "$files" ] || awk -v strings=1 -f "$here/strip.awk" $files | grep -v ':[ \t]*#[ \t]*include' | grep -E "$re"
    [ -f compose/nats.conf ] || echo "compose/nats.conf is missing"
    for s in $suffixes; do
        s=$(printf %s "$s" | sed -e 's/%s$/*/')
        grep -qsF "\"aigw.$s\"" compose/nats.conf || echo "compose/nats.conf: nobody may use aigw.$s"
        grep -qs "^| \`aigw\.${s%\*}[a-z<>]*\` |" docs/bus.md || echo "docs/bus.md: no row for aigw.$s"
    done
)
[ -z "$bad" ] && exit 0
printf '%s\n' "$bad"
exit 1
