#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts, stops and shows the whole suite on this machine; what `make run`, `make stop` and `make status` call.
#   run.sh start|stop|status BIN
# Everything lives below STATE (default state/): databases, spools, logs, pids, and the secrets, made at the first start.
# Settings, as environment variables: EDGES POLICIES COUNTER_URL STORE_URL METRICS_STORE_URL LOG_LEVEL and the ports below.
set -eu
umask 077

root=$(cd "$(dirname "$0")/../.." && pwd)
absolute() { case $1 in /*) printf %s "$1" ;; *) printf %s "$root/$1" ;; esac; }
command=$1
bin=$(absolute "$2")
state=$(absolute "${STATE:-state}")
vocab=$(absolute "${VOCAB_DIR:-vocab}")

case $command in
stop | status)
    [ -x "$bin/aigw-run" ] || [ -e "$state/run" ] || { echo "nothing runs"; exit; }
    [ -x "$bin/aigw-run" ] || { echo "$bin/aigw-run is missing: 'make' builds it again" >&2; exit 1; }
    exec "$bin/aigw-run" "$command" "$state"
    ;;
start) ;;
*) echo "usage: run.sh start|stop|status BIN" >&2; exit 2 ;;
esac

# --- settings ---------------------------------------------------------------------------------------------------------
number() { # NAME VALUE MAX
    case $2 in '' | *[!0-9]* | ??????*) bad=yes ;; *) bad= ;; esac
    if [ -n "$bad" ] || [ "$2" -lt 1 ] || [ "$2" -gt "$3" ]; then
        echo "$1=$2: a number from 1 to $3 is needed" >&2
        exit 1
    fi
}
edges=${EDGES:-1} policies=${POLICIES:-1}
gateway=${GATEWAY_PORT:-8081} config=${CONFIG_CENTER_PORT:-8001} token=${TOKEN_SERVICE_PORT:-8002}
metrics=${METRICS_PORT:-8003} mock=${MOCKLLM_PORT:-8010} policy_ops=${POLICY_OPS_PORT:-9004}
nats=${NATS_PORT:-4222} monitor=${NATS_MONITOR_PORT:-8222}
counter=${COUNTER_URL:-memory:}
number EDGES "$edges" 16
number POLICIES "$policies" 16
number GATEWAY_PORT "$gateway" 60000
number CONFIG_CENTER_PORT "$config" 60000
number TOKEN_SERVICE_PORT "$token" 60000
number METRICS_PORT "$metrics" 60000
number MOCKLLM_PORT "$mock" 60000
number POLICY_OPS_PORT "$policy_ops" 60000
number NATS_PORT "$nats" 65535
number NATS_MONITOR_PORT "$monitor" 65535
if [ "$policies" -gt 1 ] && [ "$counter" = memory: ]; then
    echo "POLICIES=$policies needs counters that they can share: COUNTER_URL=redis://:password@127.0.0.1:6379/0" >&2
    exit 1
fi

# --- secrets, once ----------------------------------------------------------------------------------------------------
secrets=$state/secrets
mkdir -p "$state" "$secrets"
hex() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }
secret() { # FILE VALUE
    [ -s "$secrets/$1" ] || { printf '%s\n' "$2" >"$secrets/$1.new" && mv "$secrets/$1.new" "$secrets/$1"; }
}
secret master_key "$(hex 32)"
secret key_pepper "$(hex 32)"
secret admin_token "$(hex 24)"
secret demo_key "sk-aigw-$(hex 20)"
# In quotes, because the server reads the value as a piece of its configuration.
{
    printf 'NATS_STORE_DIR="%s"\n' "$state/nats"
    for u in edge token policy config metrics observer; do
        secret "nats_$u" "p$(hex 16)" # a letter first: see nats.conf
        printf 'NATS_%s_PASSWORD=%s\n' "$(printf %s $u | tr a-z A-Z)" "$(cat "$secrets/nats_$u")"
    done
} >"$secrets/nats.env"
# They may hold a password, so they go to files, not into the plan. Processes that run read them again when they are
# started again, so the files change with the plan only.
running=no differs=no
"$bin/aigw-run" status "$state" >/dev/null 2>&1 && running=yes
url() { # FILE VALUE
    [ "$(cat "$secrets/$1" 2>/dev/null)" != "$2" ] || return 0
    if [ $running = yes ]; then differs=yes; else printf '%s\n' "$2" >"$secrets/$1"; fi
}
url counter_url "$counter"
url store_url "${STORE_URL:-sqlite:$state/config/config.db}"
url metrics_store_url "${METRICS_STORE_URL:-sqlite:$state/metrics/metrics.db}"

# --- the plan ---------------------------------------------------------------------------------------------------------
# What was taken up above must not reach the daemons a second time, by their environment.
unset COUNTER_URL STORE_URL METRICS_STORE_URL MASTER_KEY KEY_PEPPER ADMIN_TOKEN NATS_URL NATS_USER NATS_PASSWORD INSTANCE
nats_server=$(command -v nats-server || echo /usr/sbin/nats-server)
daemon() { # NAME SERVICE OPS_PORT OPS_SETTING AFTER
    echo "process $1"
    echo "  after $5"
    echo "  command \"$bin/aigw-$2\""
    echo "  env INSTANCE=$1"
    echo "  env OPS_PORT=$3"
    echo "  env STATE_DIR=$state/$1"
    echo "  env LOG_LEVEL=${LOG_LEVEL:-info}"
    echo "  env NATS_URL=nats://127.0.0.1:$nats"
    echo "  env NATS_USER=$2"
    echo "  env NATS_PASSWORD_FILE=$secrets/nats_$2"
    echo "  ready http://127.0.0.1:$3/readyz"
    echo "  port $3 $4"
}
listener() { # SETTING PORT
    echo "  env $1=$2"
    echo "  port $2 $1"
}
keys() {
    echo "  env MASTER_KEY_FILE=$secrets/master_key"
    echo "  env KEY_PEPPER_FILE=$secrets/key_pepper"
}
{
    echo "# Written by services/run/run.sh; changes are lost at the next start."
    echo "process nats"
    echo "  command \"$nats_server\" -c \"$root/compose/nats.conf\" -a 127.0.0.1 -p $nats -m $monitor"
    echo "  env-file \"$secrets/nats.env\""
    echo "  ready http://127.0.0.1:$monitor/healthz"
    echo "  port $nats NATS_PORT"
    echo "  port $monitor NATS_MONITOR_PORT"
    echo "process mockllm"
    echo "  command \"$bin/aigw-mockllm\""
    echo "  env INSTANCE=mockllm"
    echo "  env OPS_PORT=$((mock + 1000))"
    echo "  env STATE_DIR=$state/mockllm"
    echo "  env VOCAB_DIR=$vocab"
    listener MOCKLLM_PORT "$mock"
    echo "  ready http://127.0.0.1:$((mock + 1000))/readyz"
    echo "  port $((mock + 1000)) MOCKLLM_PORT"
    daemon config config $((config + 1000)) CONFIG_CENTER_PORT nats
    listener CONFIG_CENTER_PORT "$config"
    keys
    echo "  env ADMIN_TOKEN_FILE=$secrets/admin_token"
    echo "  env STORE_URL_FILE=$secrets/store_url"
    daemon metrics metrics $((metrics + 1000)) METRICS_PORT nats
    listener METRICS_PORT "$metrics"
    echo "  env STORE_URL_FILE=$secrets/metrics_store_url"
    # Records stay to be looked at (nats stream view AIGW_USAGE) for a week after they were stored.
    echo "  env USAGE_STREAM_KEEP=true"
    echo "  env USAGE_STREAM_MAX_AGE_S=604800"
    daemon token token $((token + 1000)) TOKEN_SERVICE_PORT nats
    listener TOKEN_SERVICE_PORT "$token"
    echo "  env VOCAB_DIR=$vocab"
    k=1
    while [ $k -le "$policies" ]; do
        daemon policy-$k policy $((policy_ops + 100 * (k - 1))) POLICY_OPS_PORT nats
        echo "  env COUNTER_URL_FILE=$secrets/counter_url"
        k=$((k + 1))
    done
    k=1
    while [ $k -le "$edges" ]; do
        port=$((gateway + 100 * (k - 1)))
        daemon edge-$k edge $((port + 1000)) GATEWAY_PORT "nats config token policy-1 metrics mockllm"
        listener GATEWAY_PORT $port
        keys
        echo "  env VOCAB_DIR=$vocab"
        # On one machine an engine that does not answer at once is busy; of one that is gone NATS tells.
        echo "  env ASK_TIMEOUT_MS=${ASK_TIMEOUT_MS:-1000}"
        k=$((k + 1))
    done
} >"$state/plan"

# --- the demo, at the first start -------------------------------------------------------------------------------------
api=http://127.0.0.1:$config/api/v2
admin() { # CURL ARGUMENTS…; the token goes by a file, not by the command line
    curl -sS --max-time 20 --fail-with-body -H @"$secrets/admin_header" "$@"
}
import_demo() {
    [ -e "$state/demo-imported" ] && return 0
    printf 'Authorization: Bearer %s\n' "$(cat "$secrets/admin_token")" >"$secrets/admin_header"
    i=0
    # Ours, and ready: the admin token is not for whatever else may listen there.
    until "$bin/aigw-run" status "$state" 2>/dev/null | grep -q '^config  *ready ' &&
        curl -fs -o /dev/null --max-time 2 "http://127.0.0.1:$((config + 1000))/readyz" 2>/dev/null; do
        i=$((i + 1))
        [ $i -lt 600 ] || return 1
        sleep 0.1
    done
    sed -e "s|http://127.0.0.1:8010|http://127.0.0.1:$mock|" -e "s|DEMO_KEY|$(cat "$secrets/demo_key")|" \
        "$root/compose/demo.json" >"$secrets/demo.json"
    admin -X PUT "$api/config" -H 'Content-Type: application/json' --data-binary @"$secrets/demo.json" \
        -o "$state/demo-answer.json" || {
        echo "the demo's configuration was not taken:" >&2
        cat "$state/demo-answer.json" >&2
        return 1
    }
    rm -f "$state/demo-answer.json" "$secrets/demo.json" "$secrets/admin_header"
    : >"$state/demo-imported"
}

if [ $running = yes ]; then
    cmp -s "$state/plan" "$state/run/plan" || differs=yes
    if [ $differs = yes ]; then
        echo "Already running, with other settings than these: 'make stop' first to use them. What runs:"
        exec "$bin/aigw-run" status "$state"
    fi
    echo "Already running."
else
    echo "Starting (logs: $state/log)"
    import_demo &
    importer=$!
    trap 'kill $importer 2>/dev/null || true' EXIT
    trap 'exit 130' HUP INT TERM
    "$bin/aigw-run" start "$state/plan" "$state" || exit 1
    wait $importer || { "$bin/aigw-run" stop "$state"; exit 1; }
    trap - EXIT HUP INT TERM
fi

# --- what to try ------------------------------------------------------------------------------------------------------
case $secrets in *[!A-Za-z0-9_/.+-]*) shown="'$secrets'" ;; *) shown=$secrets ;; esac
body='{"model":"Qwen3-8B","messages":[{"role":"user","content":"你好"}]}'
cat <<TEXT

  gateway   http://127.0.0.1:$gateway$(k=2; while [ $k -le "$edges" ]; do printf ' %s' "$((gateway + 100 * (k - 1)))"; k=$((k + 1)); done)
  config    http://127.0.0.1:$config/api/v2/    (Authorization: Bearer \$(cat $shown/admin_token))
  token     http://127.0.0.1:$token
  metrics   http://127.0.0.1:$metrics
  mock LLM  http://127.0.0.1:$mock
  NATS      nats://observer:\$(cat $shown/nats_observer)@127.0.0.1:$nats    (monitoring: http://127.0.0.1:$monitor)

Try:
  curl -X POST localhost:$token/calculate -H 'Content-Type: application/json' \\
       -d '$body'
  curl -X POST localhost:$gateway/api/chat -H 'Content-Type: application/json' -H 'X-Channel-Code: test-channel' \\
       -d '$body'
  curl localhost:$gateway/v1/chat/completions -H "Authorization: Bearer \$(cat $shown/demo_key)" \\
       -H 'Content-Type: application/json' \\
       -d '{"model":"Qwen3-8B","stream":true,"messages":[{"role":"user","content":"你好"}]}'
  curl localhost:$gateway/metrics

'make status' says what runs, 'make stop' ends it.
TEXT
