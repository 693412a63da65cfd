#!/usr/bin/env bash
# Shows that tcpgw leaves alone what is Docker's: a container that talks to the outside and a port that Docker publishes go on
# through all that tcpgw does on the same machine. Not one byte of theirs is lost, and no rule of Docker's is changed.
#
# The script starts a Docker engine of its own in a network namespace, and leaves nothing behind. It needs root, cc, and
# Debian's docker.io.
#
#   recipes/bystander.sh        TCPGW_BINARY=target/debug/tcpgw uses another binary
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=recipes/lib.sh
. recipes/lib.sh
# shellcheck source=recipes/engine.sh
. recipes/engine.sh

outside=203.0.113.10
published=8080

main() {
    stage_up bystander
    # shellcheck disable=SC2119 # without further options
    start_docker
    # In the configuration, so that commands work without a daemon, too.
    printf '[daemon]\nsocket = "%s"\n' "$TCPGW_SOCKET" >"$files/without"
    unset TCPGW_SOCKET
    { cat "$files/without"; printf '[docker]\nsocket = "%s"\n' "$files/docker.sock"; } >"$files/with"
    cp "$files/with" "$files/config.toml"
    TCPGW_CONFIG=$files/config.toml
    build_image

    say "Docker alone: a container with a published port, and one that talks to the outside"
    docker network create --subnet 172.30.0.0/24 app
    docker run --detach --name shop --network app --publish "$published:3000" app shop
    docker run --detach --name bystander --network app app bystander
    ip netns exec "$prefix-client" python3 scripts/lib/peer.py serve outside "$outside" 7000 >/dev/null 2>&1 3>&- &
    await "nobody listens outside" answers "$outside" 7000
    iptables -I DOCKER-USER -m connmark --mark 0x800000/0x800000 -j ACCEPT
    within bystander python3 scripts/lib/peer.py count "$outside" 7000 >"$files/out" 3>&- &
    out=$!
    ip netns exec "$prefix-client" python3 scripts/lib/peer.py count "$public" "$published" >"$files/in" 3>&- &
    in=$!
    ip netns exec "$prefix-client" python3 scripts/lib/peer.py keep-asking "$public" "$published" >"$files/new" 3>&- &
    new=$!
    await "the sessions do not begin" sessions_began
    rules_of_docker >"$files/rules"

    say "1. tcpgw starts, and a container becomes a backend by its label"
    start_daemon
    run first
    await "first gets no connections" gets_connections first

    say "2. The published container is a backend of tcpgw, too, and is retired with a flush"
    address=$(on_engine container inspect --format '{{.NetworkSettings.Networks.app.IPAddress}}' shop)
    tcpgw service add web --port 20005 --backend "$address:3000" --on-retire reset
    tcpgw wait web --for healthy
    hold 20005 web
    tcpgw deploy web --target "$(on_engine container inspect --format '{{.NetworkSettings.Networks.app.IPAddress}}' bystander):3000" \
        --drain-timeout 0s 2>&1
    ended web "shop reset"
    tcpgw service rm web

    say "3. Containers come and go: docker stop, docker kill"
    run second
    await "second gets no connections" gets_connections second
    docker stop --time 0 first
    docker rm first
    docker kill second
    docker rm second
    run third
    await "third gets no connections" gets_connections third

    say "4. Without [docker], and with it again"
    cp "$files/without" "$files/config.toml"
    kill -HUP "$daemon"
    await "it is no orphan" quietly is_orphan
    cp "$files/with" "$files/config.toml"
    kill -HUP "$daemon"
    await "it is still an orphan" quietly is_no_orphan

    say "5. kill -9, and a start"
    killed
    start_daemon
    await "third gets no connections" gets_connections third

    say "6. Everything is torn down, and comes back"
    tcpgw teardown
    [ -z "$(on gateway nft list tables inet)" ] || fail "there is still a table"
    tcpgw resume
    await "third gets no connections" gets_connections third

    say "7. Torn down beside a dead daemon"
    killed
    tcpgw teardown

    say "What Docker's own clients saw"
    rules_of_docker | diff "$files/rules" - || fail "rules of Docker were changed"
    note "no rule of Docker's was changed"
    kill "$out" "$in" "$new"
    wait "$out" "$in" "$new"
    python3 - "$files/out" "$files/in" "$files/new" <<'PYTHON' || fail "Docker's own clients should have noticed nothing"
import json, sys
out, into, new = (json.loads(open(path).read().splitlines()[-1]) for path in sys.argv[1:])
for what, told in ("a container to the outside", out), ("from outside to a published port", into):
    print(f"   {what}: {told['sent']} bytes sent, {told['back']} came back {told['trouble']}")
print(f"   new connections to the published port: {new['ok']} ok, {new['failed']} failed, longest {new['longest_ms']} ms {new['failures'] or ''}")
sys.exit(not all(told["sent"] == told["back"] > 100_000 and not told["trouble"] for told in (out, into)) or new["failed"] != 0)
PYTHON
}

run() {
    # One that ignores SIGTERM, so that its connections are flushed.
    docker run --detach --name "$1" --network app --label tcpgw.port="$port" --label tcpgw.service=app \
        --label tcpgw.drain_timeout=500ms --label tcpgw.on_retire=reset app "$1" deaf
}

# A command in the network namespace of a container.
within() {
    container=$(on_engine container inspect --format '{{.State.Pid}}' "$1")
    shift
    # The engine has processes of its own, and so has its /proc.
    exec nsenter --net="/proc/$(pgrep --parent "$engine")/root/proc/$container/ns/net" "$@"
}

sessions_began() { [ -s "$files/out" ] && [ -s "$files/in" ] && [ -s "$files/new" ]; }
# Docker changes its rules when containers with published ports come and go; none do here.
rules_of_docker() { on gateway iptables-save | grep -v '^[#:]'; }
gets_connections() { on client python3 scripts/lib/peer.py ask "$public" "$port" 10 | grep "\"$1" >/dev/null; }
is_orphan() { on gateway "$binary" service ls | grep orphan >/dev/null; }
is_no_orphan() { ! is_orphan; }

# A client that holds a connection to this port, and how it ended.
hold() {
    ip netns exec "$prefix-client" python3 scripts/lib/peer.py hold "$public" "$1" 1 >"$files/hold-$2" 3>&- &
    holding=$!
    await "nobody is connected" test -s "$files/hold-$2"
}
ended() {
    wait "$holding"
    grep "\"$2\"" "$files/hold-$1" >/dev/null || fail "$(cat "$files/hold-$1")"
}

killed() {
    shown kill -9 "$daemon"
    kill -9 "$daemon"
    { wait "$daemon"; } 2>/dev/null || true
}

# The image is built from scratch, so that no registry is needed.
build_image() {
    mkdir "$files/image"
    build_app "$files/image/app" -static
    { cat recipes/Dockerfile; echo 'EXPOSE 3000'; } >"$files/image/Dockerfile"
    DOCKER_BUILDKIT=0 docker build --tag app "$files/image"
}

main
