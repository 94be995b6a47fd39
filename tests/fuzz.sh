#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs each fuzz target for a while, beginning with its corpus. What it finds anew stays below BUILD; a crash leaves its
# input there and is named.
#   fuzz.sh BUILD SECONDS
build=$1 seconds=$2
cd "$(dirname "$0")/.." || exit 2
passed=0 failed=0
for src in tests/fuzz/fuzz_*.c tests/fuzz/*/fuzz_*.c; do
    [ -f "$src" ] || continue
    name=${src#tests/fuzz/} name=${name%.c}
    found=$build/found/$name
    mkdir -p "$found"
    echo "        $name, $seconds s"
    if "$build/fuzz/$name" -max_total_time="$seconds" -artifact_prefix="$found/crash-" -print_final_stats=1 "$found" \
        "tests/fuzz/corpus/$(basename "$name" | sed 's/^fuzz_//')" >"$build/fuzz/$name.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$build/fuzz/$name.log") inputs)"
    else
        failed=$((failed + 1))
        echo "FAILED  $name: $build/fuzz/$name.log"
        grep -E 'ERROR|SUMMARY|Test unit written' "$build/fuzz/$name.log" | head -n 5 | sed 's/^/        /'
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
