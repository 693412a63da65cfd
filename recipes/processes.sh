#!/usr/bin/env bash
# Recipe: a new version of an app whose servers are plain processes on machines behind the gateway.
#
#   start the new ones -> tcpgw deploy -> at the switch: SIGTERM to the old -> they drain -> SIGKILL to who is still there
#
# It plays in network namespaces of its own, with clients that count what they see. It needs root, and cc.
#
#   recipes/processes.sh        TCPGW_BINARY=target/debug/tcpgw for another binary
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=recipes/lib.sh
. recipes/lib.sh

# Longer than the old servers need to end by themselves; then their sessions are cut.
drain=3s

main() {
    stage_up processes
    start_daemon
    build_app "$files/app"
    say "Version 1 serves on b1 and b2"
    serve b1
    # A server that does not care when it is told to end: there is always one.
    trap '' TERM
    serve b2 deaf
    trap 'exit 130' TERM
    # on_retire is what a client gets that goes on talking to a server that was cut off: "reset" makes it reconnect at
    # once, "drop" lets it time out.
    tcpgw service add app --port "$port" --backend 10.2.0.11:3000 --backend 10.2.0.12:3000 --on-retire reset
    tcpgw wait app --for healthy

    clients_come
    say "1. Version 2 starts on b3 and b4. It takes a second until it listens: nobody has to wait for that here"
    { sleep 1; serve b3; serve b4; } 2>/dev/null &

    say "2. The deploy: it waits until both answer, switches, and returns when the old ones may be removed"
    # The hook runs at the switch. Connections that were made just before may still be in the old servers' accept
    # queues, and a process that ends resets those: give it a moment to take them.
    tcpgw deploy app --target 10.2.0.13:3000 --target 10.2.0.14:3000 --timeout 20s --drain-timeout "$drain" \
        --on-switched "sleep 0.5; kill -TERM ${pids[b1]} ${pids[b2]}" 2>&1

    say "3. Who is still there has had its time"
    for host in b1 b2; do
        # Not before the deploy has returned: until then it may have clients.
        if kill -KILL "${pids[$host]}" 2>/dev/null; then
            # The shell would say that it was killed.
            wait "${pids[$host]}" 2>/dev/null || true
            note "$host did not end by SIGTERM, and is killed"
        else
            note "$host ended by itself"
        fi
    done
    sleep 0.5

    say "What the clients saw"
    clients_leave "b1 closed" "b2 reset"
    note "b1's were closed by b1; b2's were reset at the deadline; new connections never failed"

    say "And if version 3 never comes up, nothing happens"
    tcpgw deploy app --target 10.2.0.11:3000 --timeout 1s && fail "a deploy of nobody succeeded"
    tcpgw service show app | sed 's/^/   /'
}

declare -A pids
serve() {
    # Written out, so that $! is the program and not a shell around it.
    ip netns exec "$prefix-$1" "$files/app" "$@" >/dev/null 2>&1 3>&- &
    pids[$1]=$!
    await "$1 does not listen" answers "10.2.0.1${1#b}" 3000
}

main
