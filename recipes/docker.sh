#!/usr/bin/env bash
# Recipe: deploys a new version of an app whose servers are containers of Docker, on the gateway itself.
#
#   docker run the new containers -> tcpgw deploy --until switched -> docker stop the old ones -> tcpgw wait --for drained -> docker rm
#
# The script starts a Docker engine of its own in a network namespace, and leaves nothing behind. It needs root, cc, and
# Debian's docker.io.
#
#   recipes/docker.sh           TCPGW_BINARY=target/debug/tcpgw uses another binary
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=recipes/lib.sh
. recipes/lib.sh
# shellcheck source=recipes/engine.sh
. recipes/engine.sh

# Seconds from SIGTERM to SIGKILL in `docker stop`. The drain ends earlier, so that clients get a reset while the server still runs.
grace=5
drain=3s

main() {
    stage_up docker
    # shellcheck disable=SC2119 # without further options
    start_docker
    start_daemon
    build_image

    say "Version 1: two containers, in a network of their own"
    # Without --publish, because tcpgw publishes the port.
    docker network create --subnet 172.30.0.0/24 app
    docker run --detach --name v1-a --network app app v1-a
    # Process 1 of a container ignores SIGTERM if it has no handler for it (`docker run --init` helps). This server is an example.
    docker run --detach --name v1-b --network app app v1-b deaf
    tcpgw service add app --port "$port" --backend "$(endpoint v1-a)" --backend "$(endpoint v1-b)" --on-retire reset
    tcpgw wait app --for healthy

    say "Docker's firewall: what it did not publish itself is not let in"
    # Docker drops packets that are forwarded to its networks and that it has not published (by the policy of FORWARD). The
    # daemon's probes come from the gateway itself and are not forwarded, so that they are not affected.
    # `tcpgw doctor` reads the daemon's record, which is written one second after each change.
    sleep 1
    tcpgw doctor && fail "doctor should have seen that Docker drops what is forwarded"
    # Accept the flows that tcpgw has marked. Docker does not change DOCKER-USER. After a boot the rule must be added again,
    # for example by the unit that starts Docker.
    iptables -I DOCKER-USER -m connmark --mark 0x800000/0x800000 -j ACCEPT
    await "doctor still objects" quietly tcpgw doctor
    note "now doctor has nothing to object to"

    clients_come
    say "1. Version 2 starts beside version 1"
    docker run --detach --name v2-a --network app app v2-a
    docker run --detach --name v2-b --network app app v2-b

    say "2. The deploy returns when new connections go to version 2 only"
    tcpgw deploy app --target "$(endpoint v2-a)" --target "$(endpoint v2-b)" --until switched --drain-timeout "$drain" 2>&1

    say "3. The old ones are told to end"
    # Connections that were established just before may still be in the servers' accept queues: wait until they are accepted.
    sleep 0.5
    docker stop -t "$grace" v1-a v1-b

    say "4. They may be removed when they have no flows any more"
    tcpgw wait app --for drained
    docker rm v1-a v1-b
    sleep 0.5

    say "What the clients saw"
    clients_leave "v1-a closed" "v1-b reset"
    note "v1-a ended by SIGTERM; v1-b ignored it, and its sessions were reset at the deadline; new connections never failed"
}

endpoint() {
    echo "$(on_engine container inspect --format '{{.NetworkSettings.Networks.app.IPAddress}}' "$1"):3000"
}

# The image is built from scratch, so that no registry is needed.
build_image() {
    mkdir "$files/image"
    build_app "$files/image/app" -static
    cp recipes/Dockerfile "$files/image"
    DOCKER_BUILDKIT=0 docker build --tag app "$files/image"
}

main
