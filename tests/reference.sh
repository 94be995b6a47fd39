#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs/reference.md is what the tables in the code say.
cd "$(dirname "$0")/.." || exit 2
if docs/reference.sh "$1/bin" | diff -u docs/reference.md - >build/reference.diff; then
    echo "ok      docs/reference.md"
    echo "1 passed, 0 failed"
else
    echo "FAILED  docs/reference.md differs from the tables in the code (make docs):"
    head -n 40 build/reference.diff
    echo "0 passed, 1 failed"
    exit 1
fi
