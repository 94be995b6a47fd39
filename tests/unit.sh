#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the unit test programs below BUILD/unit and the corpora through BUILD/replay. A line per program, what failed in
# full, and counts on the last line.
#   unit.sh BUILD
build=$1
cd "$(dirname "$0")/.." || exit 2
# Where Debian puts servers is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin
CMOCKA_MESSAGE_OUTPUT=STDOUT
export PATH CMOCKA_MESSAGE_OUTPUT ASAN_OPTIONS="${ASAN_OPTIONS-abort_on_error=0:detect_stack_use_after_return=1}" \
    UBSAN_OPTIONS="${UBSAN_OPTIONS-print_stacktrace=1}"
passed=0 failed=0
run() { # NAME PROGRAM ARGUMENTS… : output to PROGRAM.log
    name=$1
    shift
    if timeout 300 "$@" >"$1.log" 2>&1; then rc=0; else rc=$?; fi
    good=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test(s).*/\1/p' "$1.log" | head -n 1)
    bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test(s), listed below:.*/\1/p' "$1.log" | head -n 1)
}

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
        echo "FAILED  $name (exit $rc)"
        tail -n 60 "$build/unit/$name.log" | sed 's/^/        /'
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
        echo "FAILED  $name (exit $rc)"
        tail -n 60 "$build/replay/$name.log" | sed 's/^/        /'
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
