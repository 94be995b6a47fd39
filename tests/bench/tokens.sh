#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `make bench-tokens` runs once everything is built: installs the peers that can be had, measures.
#   tokens.sh BUILD VOCAB_DIR
# Of npm by the oracle's lock file; of Python and Rust where python3 with pip and cargo are there.
set -eu

build=$(realpath "$1") vocabs=$(realpath "$2")
cd "$(dirname "$0")"
top=$PWD/../..
../../services/run/deps.sh bench || echo "no Chinese manual pages: less Chinese text" >&2
../oracle/node.sh
python=$(../oracle/python.sh requirements.txt "$top/build/bench-python") || python=""
peers=""
if command -v cargo >/dev/null 2>&1; then
    [ -x "$top/build/bench-peers/release/peers" ] || echo "cargo: building the counters of Rust (minutes)" >&2
    if cargo build --quiet --release --manifest-path peers/Cargo.toml --target-dir "$top/build/bench-peers" >&2; then
        peers=$top/build/bench-peers/release/peers
    else
        echo "cargo could not build them: left out" >&2
    fi
else
    echo "no cargo: the counters of Rust are left out" >&2
fi
exec node tokens.mjs "$build" "$vocabs" "$build/bench/work" "$python" "$peers"
