#!/usr/bin/env bash
# Recipe: deploys a new version of an app whose servers are plain processes on machines behind the gateway.
#
#   start the new processes -> tcpgw deploy -> at the switch: SIGTERM to the old ones -> they drain -> SIGKILL to those that still run
#
# The script runs in network namespaces of its own, with clients that count failed connections. It needs root, and cc.
#
#   recipes/processes.sh        TCPGW_BINARY=target/debug/tcpgw uses another binary
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=recipes/lib.sh
. recipes/lib.sh

# Longer than a server needs to end by itself. After this time the gateway ends the sessions that are left.
drain=3s

main() {
    stage_up processes
    start_daemon
    build_app "$files/app"
    say "Version 1 serves on b1 and b2"
    serve b1
    # The server on b2 ignores SIGTERM, as some servers do.
    trap '' TERM
    serve b2 deaf
    trap 'exit 130' TERM
    # on_retire is the answer to a client whose session was ended by the gateway: with "reset" it can reconnect at once, with
    # "drop" it times out.
    tcpgw service add app --port "$port" --backend 10.2.0.11:3000 --backend 10.2.0.12:3000 --on-retire reset
    tcpgw wait app --for healthy

    clients_come
    say "1. Version 2 starts on b3 and b4. It takes a second until it listens: nobody has to wait for that here"
    { sleep 1; serve b3; serve b4; } 2>/dev/null &

    say "2. The deploy: it waits until both answer, switches, and returns when the old ones may be removed"
    # The command runs at the switch. Connections that were established just before may still be in the old servers' accept
    # queues, and a process that ends resets these. Therefore it waits half a second.
    tcpgw deploy app --target 10.2.0.13:3000 --target 10.2.0.14:3000 --timeout 20s --drain-timeout "$drain" \
        --on-switched "sleep 0.5; kill -TERM ${pids[b1]} ${pids[b2]}" 2>&1

    say "3. Who is still there has had its time"
    for host in b1 b2; do
        # Only after the deploy has returned, because the server may have clients until then.
        if kill -KILL "${pids[$host]}" 2>/dev/null; then
            # `wait` suppresses the shell's message about the killed process.
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
    # Not a function that runs the command, so that $! is the program and not a shell around it.
    ip netns exec "$prefix-$1" "$files/app" "$@" >/dev/null 2>&1 3>&- &
    pids[$1]=$!
    await "$1 does not listen" answers "10.2.0.1${1#b}" 3000
}

main
