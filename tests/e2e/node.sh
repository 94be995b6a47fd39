#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the tests' npm packages when package-lock.json has changed since: official clients, and a Node.js of their
# own, because Debian 12's is older than some of them take.
set -eu
cd "$(dirname "$0")"
stamp=node_modules/.installed
want=$(sha256sum package-lock.json)
[ "$(cat $stamp 2>/dev/null)" = "$want" ] && exit 0
echo "test-deps: npm packages of the end-to-end tests"
npm ci --no-audit --no-fund --ignore-scripts
printf '%s\n' "$want" >$stamp
