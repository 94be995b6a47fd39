#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Functions that are not used here, each for a reason: no bound (sprintf, strcpy, gets, …), no error (atoi), hidden state
# (strtok), unbounded stack (alloca), the right of main alone (exit in libraries), waiting by guessing (sleep outside of
# tests), and structs hidden behind a typedef.
cd "${1:-.}" || exit 2
here=${LINT_DIR:-$PWD/tests/lint}
sources() { find "$@" -name node_modules -prune -o \( -name '*.c' -o -name '*.h' \) -print 2>/dev/null; }

bad=$(
    files=$(sources common proto services tests)
    [ -z "$files" ] || awk -v strings=0 -f "$here/strip.awk" $files |
        grep -E '(^|[^A-Za-z0-9_])(v?sprintf|strcpy|stpcpy|strcat|strncpy|strncat|strtok|strtok_r|atoi|atol|atoll|atof|gets|alloca|strdupa)[ \t]*\(|typedef[ \t]+(struct|union)([ \t]+[A-Za-z0-9_]+)?[ \t]*(\{|[A-Za-z0-9_* \t]+;)'
    files=$(sources common proto)
    [ -z "$files" ] || awk -v strings=0 -f "$here/strip.awk" $files |
        grep -E '(^|[^A-Za-z0-9_])(exit|_exit|quick_exit|system|popen)[ \t]*\(' |
        grep -v '^common/rt/daemon\.c:.*[^A-Za-z0-9]_exit' # the second SIGTERM: at once
    files=$(sources common proto services)
    [ -z "$files" ] || awk -v strings=0 -f "$here/strip.awk" $files |
        grep -E '(^|[^A-Za-z0-9_])(sleep|usleep|nanosleep|clock_nanosleep)[ \t]*\('
)
[ -z "$bad" ] && exit 0
printf '%s\n' "$bad"
exit 1
