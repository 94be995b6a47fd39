#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the unit test programs below BUILD/unit and the corpora through BUILD/replay. A line per program; below one that
# failed its assertions and the beginning of a sanitizer's report, the whole output stays in PROGRAM.log. What failed is
# named once more at the end, and counts are on the last line.
#   unit.sh BUILD
build=$1
cd "$(dirname "$0")/.." || exit 2
# Where Debian puts servers is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin
CMOCKA_MESSAGE_OUTPUT=STDOUT
# A signal is the sanitizer's to report, with the stack of the thread that got it: cmocka's own handler ends the program with
# 255 and no word when that thread is not the test's, as its assertions do.
signals=handle_segv=2:handle_sigbus=2:handle_sigfpe=2:handle_sigill=2:handle_abort=2
export PATH CMOCKA_MESSAGE_OUTPUT ASAN_OPTIONS="${ASAN_OPTIONS-abort_on_error=0:detect_stack_use_after_return=1:$signals}" \
    UBSAN_OPTIONS="${UBSAN_OPTIONS-print_stacktrace=1}"
passed=0 failed=0
run() { # NAME PROGRAM ARGUMENTS… : output to PROGRAM.log
    name=$1
    shift
    if timeout 900 "$@" >"$1.log" 2>&1; then rc=0; else rc=$?; fi
    good=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test(s).*/\1/p' "$1.log" | head -n 1)
    bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test(s), listed below:.*/\1/p' "$1.log" | head -n 1)
}

# What matters of PROGRAM.log: cmocka's errors, the first sanitizer's report (a leak's often only follows from an assertion
# that failed), the test that was running at a crash, and the last lines.
tell() { # NAME PROGRAM
    echo "FAILED  $1 (exit $rc; all of it: $2.log)"
    [ $rc != 255 ] || echo "        255: an assertion of cmocka's, or a signal, on a thread that is not the test's"
    awk -v name="$1" -v rc="$rc" '
        function short(s) { gsub(/[[:space:]]+/, " ", s); return substr(s, 1, 300) }
        { last[NR % 10] = $0 }
        /^\[ RUN      \]/ { running = substr($0, 14); message = ""; next }
        /^\[       OK \]/ { running = ""; next }
        /^\[  ERROR   \]/ { error = 1 }
        /^\[   LINE   \]/ { error = 0; print; message = message " " substr($0, 18); next }
        /^\[  FAILED  \] [^ ]+$/ && running != "" {
            error = 0; print; failed++; print "failed: " name " > " running ":" short(message) >"/dev/stderr"; running = ""; next
        }
        error { print; message = message " " substr($0, /^\[  ERROR/ ? 18 : 1); next }
        !report && /(ERROR: [A-Za-z]+Sanitizer|WARNING: ThreadSanitizer|: runtime error: |assertion failed)/ { report = NR; what = $0 }
        report && NR < report + 30 { print }
        END {
            if (running != "") print "failed: " name " > " running ": did not end" short(message " " what) >"/dev/stderr"
            else if (!failed) print "failed: " name ": exit " rc " " short(what) >"/dev/stderr"
            if (!failed && !report) for (i = NR - 9; i <= NR; i++) if (i > 0) print last[i % 10]
        }' "$2.log" 2>>"$build/unit.failed" | sed 's/^/        /'
}
: >"$build/unit.failed"

# Only what has a source: a program of a test that was renamed may still lie there.
for src in tests/unit/test_*.c tests/unit/*/test_*.c; do
    [ -f "$src" ] || continue
    name=${src#tests/unit/} name=${name%.c}
    run "$name" "$build/unit/$name"
    passed=$((passed + ${good:-0})) failed=$((failed + ${bad:-0}))
    if [ $rc = 0 ]; then
        echo "ok      $name (${good:-0})"
    else
        # A crash counts as one.
        [ -n "$bad" ] || failed=$((failed + 1))
        tell "$name" "$build/unit/$name"
    fi
done
for src in tests/fuzz/fuzz_*.c tests/fuzz/*/fuzz_*.c; do
    [ -f "$src" ] || continue
    name=${src#tests/fuzz/} name=${name%.c}
    corpus=tests/fuzz/corpus/$(basename "$name" | sed 's/^fuzz_//')
    [ -d "$corpus" ] || { echo "FAILED  $name: no $corpus"; failed=$((failed + 1)); continue; }
    run "$name" "$build/replay/$name" "$corpus"
    if [ $rc = 0 ]; then
        passed=$((passed + 1))
        echo "ok      $name ($(tail -n 1 "$build/replay/$name.log"))"
    else
        failed=$((failed + 1))
        tell "$name" "$build/replay/$name"
    fi
done
cat "$build/unit.failed"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
