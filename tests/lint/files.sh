#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every source file says its licence on its first line (its second, behind #!), and none is a hall: over 600 lines it is
# two files (a test's cases may be 1000). Tables of data are exempt from the length. Lock files name no addresses.
cd "${1:-.}" || exit 2
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
list() {
    find . \( -name node_modules -o -name build -o -name state -o -name vocab -o -name .git -o -name corpus \
        -o -name dist \) -prune -o -type f -print | sed 's|^\./||' | sort
}
list | grep -E '(\.(c|h|sh|awk|mjs|js|ts|tsx|py|lua|sql|conf|yml|yaml|css)|(^|/)Makefile|^\.ci/run|(^|/)Dockerfile[^/]*)$' |
    while read -r f; do
        case $f in
        *.c | *.h) head -n 1 "$f" | grep -qxF '/* SPDX-License-Identifier: Apache-2.0 */' ||
            echo "$f: its first line is not the SPDX line" ;;
        *) head -n 2 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$f: no SPDX line" ;;
        esac
        case $f in
        *_data.c) ;;
        *.c | *.h | *.mjs | *.js | *.ts | *.tsx | *.sh)
            n=$(wc -l <"$f")
            case $f in tests/*) most=1000 ;; *) most=600 ;; esac
            [ "$n" -le $most ] || echo "$f: $n lines; at most $most" ;;
        esac
    done >"$tmp"
list | grep -E '(^|/)package-lock\.json$' | while read -r f; do
    grep -Hn '"resolved"' "$f" | head -n 1 | sed 's/:[^:]*$/: an address of a download/'
done >>"$tmp"
list | grep '\.sh$' | while read -r f; do
    sh -n "$f" 2>&1 || echo "$f: not a shell script"
done >>"$tmp"
bad=$(cat "$tmp")
[ -z "$bad" ] && exit 0
printf '%s\n' "$bad"
exit 1
