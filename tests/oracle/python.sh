#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints a Python that has the packages of a requirements file, in a virtual environment made for it; fails, saying why,
# where that cannot be.
#   python.sh REQUIREMENTS FOLDER
set -eu
file=$(realpath "$1") venv=$2
want=$(sha256sum "$file")
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$want" ]; then
    command -v python3 >/dev/null 2>&1 || { echo "no python3: its references are left out" >&2; exit 1; }
    rm -rf "$venv"
    python3 -m venv "$venv" >/dev/null 2>&1 || { echo "python3 cannot make a virtual environment (no pip): its references are left out" >&2; exit 1; }
    echo "python packages: $(tr '\n' ' ' <"$file")" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$file" >&2 || { echo "pip could not install: the references of Python are left out" >&2; exit 1; }
    printf '%s\n' "$want" >"$venv/.installed"
fi
realpath -s "$venv/bin/python3"
