#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages of a group that are missing, and nothing else:
#   deps.sh build|run|test|bench|npm|nginx|lua …
# Asks no question, prints what it does. Uses sudo when it is not root. Stops nothing that runs, and keeps the
# packages' own services (nats-server, redis, mariadb) from starting: the suite and its tests start private ones.
set -eu

build="gcc libc6-dev make pkg-config libmicrohttpd-dev libcurl4-openssl-dev libssl-dev libsqlite3-dev libcjson-dev
       libmariadb-dev libhiredis-dev libyaml-dev libnats-dev zlib1g-dev libpcre2-dev"
run="nats-server curl ca-certificates tzdata"
test="redis-server mariadb-server clang clang-format libclang-rt-14-dev libcmocka-dev jq"
bench="manpages-zh"
lua="nginx libnginx-mod-http-lua redis-server util-linux"
services="nats-server redis-server mariadb nginx"

want=""
for group in "$@"; do
    case $group in
    build) want="$want $build" ;;
    run) want="$want $run" ;;
    test) want="$want $test" ;;
    bench) want="$want $bench" ;;
    nginx) want="$want nginx" ;;
    lua) want="$want $lua" ;;
    # Any npm with its node will do: only a machine without one gets Debian's.
    npm) command -v npm >/dev/null 2>&1 || want="$want npm" ;;
    *) echo "deps.sh: no group '$group'" >&2; exit 2 ;;
    esac
done

missing=""
for p in $want; do
    dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "These packages are missing, and there is no sudo to install them with:$missing" >&2
        exit 1
    }
    sudo=sudo
fi

echo "deps: installing$missing"
# invoke-rc.d and deb-systemd-invoke ask this file whether they may start a service: 101 means no.
policy=/usr/sbin/policy-rc.d
made=""
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
    made=yes
fi
cleanup() { [ -z "$made" ] || $sudo rm -f $policy; }
trap cleanup EXIT
trap 'exit 130' INT TERM

apt="env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300"
$sudo $apt update
# shellcheck disable=SC2086 # a list of words is meant
$sudo $apt install -y --no-install-recommends $missing

# Nor at the next boot; `systemctl enable NAME` takes that back.
if [ -d /run/systemd/system ]; then
    for s in $services; do
        case " $missing " in *" $s"*) $sudo systemctl disable --quiet "$s" 2>/dev/null || true ;; esac
    done
fi
