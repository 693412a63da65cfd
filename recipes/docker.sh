#!/usr/bin/env bash
# Recipe: a new version of an app whose servers are containers of Docker, on the gateway itself.
#
#   docker run the new -> tcpgw deploy --until switched -> docker stop the old -> tcpgw wait --for drained -> docker rm
#
# It plays with a Docker engine of its own in a network namespace, which leaves nothing behind. It needs root, cc, and docker.io
# of Debian.
#
#   recipes/docker.sh           TCPGW_BINARY=target/debug/tcpgw for another binary
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=recipes/lib.sh
. recipes/lib.sh

# docker stop: SIGTERM, and SIGKILL after so many seconds. Sessions are cut before, so that clients are told.
grace=5
drain=3s

main() {
    stage_up docker
    start_docker
    start_daemon
    build_image

    say "Version 1: two containers, in a network of their own"
    # No --publish: tcpgw is who publishes the port.
    docker network create --subnet 172.30.0.0/24 app
    docker run --detach --name v1-a --network app app v1-a
    # Process 1 of a container ignores SIGTERM if it has no handler of its own (--init helps): there is always one.
    docker run --detach --name v1-b --network app app v1-b deaf
    tcpgw service add app --port "$port" --backend "$(endpoint v1-a)" --backend "$(endpoint v1-b)" --on-retire reset
    tcpgw wait app --for healthy

    say "Docker's firewall: what it did not publish itself is not let in"
    # Docker drops what is forwarded to its networks and not published by it (by the policy of FORWARD). The daemon's
    # probes come from the gateway itself, and are not forwarded: they see nothing of it.
    # Doctor judges by what the daemon has on record, a second after each change.
    sleep 1
    tcpgw doctor && fail "doctor should have seen that Docker drops what is forwarded"
    # So let pass what tcpgw has marked. Docker never touches DOCKER-USER; after a boot the line has to come again,
    # from the unit that starts Docker, for one.
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
    # Connections that were made just before may still be in their accept queues: give them a moment to be taken.
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

# From scratch: no registry is asked for anything.
build_image() {
    mkdir "$files/image"
    build_app "$files/image/app" -static
    cp recipes/Dockerfile "$files/image"
    DOCKER_BUILDKIT=0 docker build --tag app "$files/image"
}

docker() {
    shown docker "$@"
    on_engine "$@" >"$files/said"
}
on_engine() { command docker --host "unix://$files/docker.sock" "$@"; }
iptables() {
    shown iptables "$@"
    on gateway iptables "$@"
}

# An engine whose network is the gateway's, and whose files, mounts and processes are its own: they end with its first process.
start_docker() {
    for program in dockerd docker; do
        type -P "$program" >/dev/null || fail "no $program: apt-get install docker.io"
    done
    # A machine that forwards already keeps its policy; Docker sets DROP where it turns forwarding on itself.
    on gateway sysctl -qw net.ipv4.ip_forward=0
    echo '{}' >"$files/engine.json"
    # `ip netns exec` would hide the control groups.
    nsenter --net="/run/netns/$prefix-gateway" \
        unshare --mount --pid --fork --kill-child --mount-proc sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh \
        dockerd --host "unix://$files/docker.sock" --config-file "$files/engine.json" --data-root "$files/docker/data" \
        --exec-root "$files/docker/exec" --pidfile "$files/docker/pid" --storage-driver vfs --bridge none \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$prefix" >"$files/dockerd.log" 2>&1 3>&- &
    engine=$!
    await "dockerd does not answer: $(tail -n 3 "$files/dockerd.log")" quietly on_engine version
}

put_away() {
    [ -n "${engine-}" ] || return 0
    [ "$code" -eq 0 ] || tail -n 20 "$files/dockerd.log" >&2
    # With the first process of its PID namespace all others go, the containers', too.
    { pkill -KILL --parent "$engine"; wait "$engine"; } 2>/dev/null || true
    for group in /sys/fs/cgroup/"$prefix" /sys/fs/cgroup/*/"$prefix"; do
        [ ! -d "$group" ] || await "$group cannot be removed" remove_group "$group"
    done
}
# What was killed leaves its group a moment later.
remove_group() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -d "$1" ]; }

main
