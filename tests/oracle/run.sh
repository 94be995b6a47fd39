#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `make oracle` runs once everything is built: installs the references, compares.
#   run.sh BUILD VOCAB_DIR [npm]
# The engines of npm come into this folder's node_modules by its lock file; those of Python, where there is a Python that
# can make a virtual environment, into build/oracle-python. With "npm" only the former are used.
set -eu

build=$(realpath "$1") vocabs=$(realpath "$2") only=${3:-}
cd "$(dirname "$0")"
./node.sh
python=""
if [ "$only" != npm ]; then python=$(./python.sh requirements.txt "$PWD/../../build/oracle-python") || python=""; fi
exec node oracle.mjs "$build" "$vocabs" "$build/oracle/work" "$python"
