#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The C files are as clang-format would write them (`make format`).
cd "${1:-.}" || exit 2
command -v clang-format >/dev/null || { echo "clang-format is missing: make test-deps installs it"; exit 1; }
files=$(find common proto services tests -name node_modules -prune -o \( -name '*.c' -o -name '*.h' \) -print | grep -v '_data\.c$')
bad=$(printf '%s\n' "$files" | xargs -n 20 -P 2 clang-format --dry-run -Werror 2>&1 | sed -n 's/: error: code should be.*//p' |
    cut -d: -f1 | sort | uniq -c)
[ -z "$bad" ] && exit 0
printf '%s\n' "$bad" | sed 's/$/ (places that clang-format would change)/'
exit 1
