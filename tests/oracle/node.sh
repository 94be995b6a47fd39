#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the npm packages of this folder when package-lock.json has changed since.
set -eu
cd "$(dirname "$0")"
../../services/run/deps.sh npm
stamp=node_modules/.installed
want=$(sha256sum package-lock.json)
[ "$(cat $stamp 2>/dev/null)" = "$want" ] && exit 0
echo "oracle: npm packages" >&2
npm ci --silent --no-audit --no-fund --ignore-scripts
printf '%s\n' "$want" >$stamp
