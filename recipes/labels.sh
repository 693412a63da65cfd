#!/usr/bin/env bash
# Recipe: containers of Docker become backends by their labels. Nothing is deployed: the daemon follows the engine.
#
#   docker run --label tcpgw.port=... -> clients reach it -> docker run another one -> docker stop the first: nobody is refused
#
# The script starts a Docker engine of its own in a network namespace, and leaves nothing behind. It needs root, cc, and
# Debian's docker.io.
#
#   recipes/labels.sh           TCPGW_BINARY=target/debug/tcpgw uses another binary
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=recipes/lib.sh
. recipes/lib.sh
# shellcheck source=recipes/engine.sh
. recipes/engine.sh

main() {
    stage_up labels
    # Containers run on while the engine is restarted.
    start_docker --live-restore
    printf '[docker]\nsocket = "%s"\n' "$files/docker.sock" >"$files/config.toml"
    TCPGW_CONFIG=$files/config.toml
    start_daemon
    build_image
    # Accept the flows that tcpgw has marked: Docker drops what it has not published itself.
    iptables -I DOCKER-USER -m connmark --mark 0x800000/0x800000 -j ACCEPT

    say "1. One label, and clients reach the container through the public port"
    docker network create --subnet 172.30.0.0/24 app
    run app-1
    await "app-1 gets no connections" gets_connections app-1
    clients_come

    say "2. Another container of the same service"
    run app-2
    await "app-2 gets no connections" gets_connections app-2
    note "two containers serve; nothing was told to tcpgw"
    await "status does not name Docker" names_docker

    say "3. docker stop: the container drains from the moment at which it is told"
    docker stop --time 5 app-1
    docker rm app-1
    await "app-1 is still a backend" quietly is_backends 1

    run app-3
    await "app-3 gets no connections" gets_connections app-3

    say "4. A container that is restarted gets connections when it listens again"
    docker restart --time 5 app-3
    await "app-3 gets no connections" gets_connections app-3

    say "5. While the engine is restarted, all goes on"
    engine_away
    await "the engine is no problem" quietly has_problem "does not answer"
    await "nobody is served" all_go_to_others nobody
    engine_back
    await "the engine is still a problem" quietly has_no_problem "does not answer"
    run app-4
    await "app-4 gets no connections" gets_connections app-4

    say "6. Labels that cannot be in effect are a problem that names the containers"
    docker run --detach --name other --network app --label tcpgw.port="$port" app other
    await "nothing is told" quietly has_problem 'tcpgw.port: 20003 is the port of service'
    tcpgw status || true
    docker rm --force other
    await "it is still a problem" quietly has_no_problem 'is the port of service'

    say "7. Without [docker] the service stays, as an orphan"
    echo >"$files/config.toml"
    kill -HUP "$daemon"
    await "it is no orphan" quietly is_orphan
    tcpgw service ls
    printf '[docker]\nsocket = "%s"\n' "$files/docker.sock" >"$files/config.toml"
    kill -HUP "$daemon"
    await "it is still an orphan" quietly is_no_orphan
    sleep 0.5

    say "What the clients saw"
    clients_leave "app-1 closed"
    note "app-1 ended by docker stop, and its sessions with it; new connections never failed"

    say "8. A container that is frozen gets no connections"
    # Those that it has wait as long as it is frozen.
    docker pause app-2
    await "app-2 still gets connections" all_go_to_others app-2
    docker unpause app-2
    await "app-2 gets no connections" gets_connections app-2

    say "9. When the last container is removed, so is the service"
    docker rm --force app-2 app-3 app-4
    await "the service is still there" quietly no_service
}

run() {
    # Takes new connections for another second after SIGTERM, as behind any load balancer.
    docker run --detach --name "$1" --network app --label tcpgw.port="$port" app "$1" patient
}

# The names of the containers that answer, of 40 connections one after the other.
answering() {
    on client python3 scripts/lib/peer.py ask "$public" "$port" 40
}
gets_connections() { answering | grep "\"$1" >/dev/null; }
# Every connection is answered, and none by this container.
all_go_to_others() {
    answering | python3 -c 'import json, sys
told = json.loads(sys.stdin.read().splitlines()[-1])
sys.exit(told["failed"] != 0 or sys.argv[1] in told["answers"])' "$1"
}
json() { on gateway "$binary" -o json "$@" || true; }
names_docker() { tcpgw status 2>/dev/null 3>/dev/null | grep '^last change: .* from docker$' >/dev/null; }
is_backends() { json service show app | python3 -c 'import json, sys; sys.exit(len(json.load(sys.stdin)["backends"]) != int(sys.argv[1]))' "$1"; }
has_problem() {
    json status | python3 -c 'import json, sys
sys.exit(not any(sys.argv[1] in problem["message"] for problem in json.load(sys.stdin)["problems"]))' "$1"
}
has_no_problem() { ! has_problem "$1"; }
is_orphan() { on gateway "$binary" service ls | grep orphan >/dev/null; }
is_no_orphan() { ! is_orphan; }
no_service() { ! on gateway "$binary" service show app; }

# The image is built from scratch, so that no registry is needed.
build_image() {
    mkdir "$files/image"
    build_app "$files/image/app" -static
    { cat recipes/Dockerfile; echo 'EXPOSE 3000'; } >"$files/image/Dockerfile"
    DOCKER_BUILDKIT=0 docker build --tag app "$files/image"
}

main
