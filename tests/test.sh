#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The whole of `make test`, from a fresh clone: what it needs, lint, unit tests and end-to-end tests of a build with
# AddressSanitizer and UndefinedBehaviorSanitizer. Goes on after a failure, names what failed at the end, and counts
# everything on the last line.
cd "$(dirname "$0")/.." || exit 2
make=${MAKE:-make}
jobs=-j$(nproc)
build=build/asan
log=build/test.log failures=build/test.failed
mkdir -p build
: >$log
: >$failures
begin=$(date +%s)
unset MAKEFLAGS MFLAGS MAKELEVEL

step() { echo "== $(($(date +%s) - begin)) s: $*"; }
must() { "$@" || { echo "0 passed, 1 failed"; exit 1; }; }
counted() { # runs and shows the command, keeping its last line for the sum
    { "$@" 2>&1; echo "exit $?"; } | tee build/test.step | grep --line-buffered -v '^exit [0-9]*$'
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' build/test.step | tail -n 1)
    # A step that did not even get to its counts, or says 0 failed and exits otherwise, has failed.
    case $counts:$(tail -n 1 build/test.step) in
    "":* | *" 0 failed:exit "[1-9]*) counts="0 passed, 1 failed" ;;
    esac
    echo "$counts" >>$log
    case $counts in *" 0 failed") return ;; esac
    grep '^failed: ' build/test.step >>$failures || echo "failed: $*" >>$failures
}
# what was not built counts as one
unbuilt() { echo "0 passed, 1 failed" >>$log; echo "failed: building $*" >>$failures; }

step "packages"
must $make -s deps
must $make -s test-deps
step "build with sanitizers"
must $make SAN=asan $jobs all
step "vocabularies"
must $make -s SAN=asan vocab-run
step "build with clang"
if $make -s CC=clang BUILD=build/clang $jobs all; then
    echo "1 passed, 0 failed" >>$log
else
    unbuilt "with clang"
fi
step "lint"
counted tests/lint/run.sh
step "unit tests"
# A test that does not build is missing when its turn comes, and has failed then.
$make -k SAN=asan $jobs unit-programs || unbuilt "unit tests"
counted tests/unit.sh $build
step "token ids beside other tokenizers, in short (all of it: make oracle)"
$make -s SAN=asan $jobs $build/oracle/stream || unbuilt "the oracle"
ORACLE_MB=1 ORACLE_ONLY='^(qwen3|cl100k_base|o200k_base)$' counted tests/oracle/run.sh $build "${VOCAB_DIR:-vocab}" npm
step "simulator of limits"
if $make -s SAN=asan $jobs $build/sim/limits; then
    counted $build/sim/limits --quick
else
    unbuilt "the simulator"
fi
step "reference pages"
counted tests/reference.sh $build
step "end-to-end tests"
counted tests/e2e.sh $build
step "done"
rm -f build/test.step
cat $failures
awk '{ p += $1; f += $3 } END { print p " passed, " f " failed"; exit f > 0 || p == 0 }' $log
