#!/usr/bin/env bash
# Recipe: the compose files of recipes/compose with a real engine, and what clients see of all that Compose and Docker do to containers, under
# 500 new connections each second.
#
#   docker compose up, --scale, a new image, a rollout -> docker stop, restart, kill, a container without memory -> tcpgw itself is replaced
#
# The script starts a Docker engine of its own in a network namespace, and leaves nothing behind. It needs root, cc, Debian's docker.io, and
# mosquitto. Compose is taken from Debian 13 where this machine has none.
#
#   recipes/compose.sh          TCPGW_BINARY=target/debug/tcpgw uses another binary
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=recipes/lib.sh
. recipes/lib.sh
# shellcheck source=recipes/engine.sh
. recipes/engine.sh
# shellcheck source=recipes/images.sh
. recipes/images.sh
# shellcheck source=recipes/load.sh
. recipes/load.sh
# shellcheck source=recipes/plugin.sh
. recipes/plugin.sh

export MQTT_IMAGE=mqtt
# How connections may fail whose server dies, and how many at most: those of half a second.
few=250
abrupt="refused,reset,no answer,Connection timed out,No route to host"

main() {
    stage_up compose
    fetch_compose &
    local fetching=$! building
    export TCPGW_SOCKET=$files/run/tcpgw.sock
    # The engine has it as /run/tcpgw.
    mkdir "$files/run"
    start_docker --host unix:///run/docker.sock --experimental --ip6tables
    build_load
    tcpgw_image &
    building=$!
    mqtt_image
    app_images v1 v2 v3 v4
    wait "$fetching"
    wait "$building"
    use_compose
    note "engine $(on_engine version --format '{{.Server.Version}}'), $(on_engine compose version)"
    # Accept the flows that tcpgw has marked: Docker drops what it has not published itself.
    iptables -I DOCKER-USER -m connmark --mark 0x800000/0x800000 -j ACCEPT

    containers_alone
    compose_under_load
    docker_under_load
    # It waits most of the time.
    retirement >"$files/retirement" 2>&1 3>&1 &
    local retiring=$!
    ipv6
    crowd
    wait "$retiring" || { cat "$files/retirement" >&2; fail "sessions did not end as they should"; }
    cat "$files/retirement"
    tcpgw_under_load
}

containers_alone() {
    say "1. An MQTT broker and tcpgw, both by docker compose up"
    broker up --detach
    await "the broker gets no connections" mqtt_works
    on_engine image ls tcpgw
    tcpgw status
    note "a message went from mosquitto_pub to mosquitto_sub through $public:1883"
}

compose_under_load() {
    write_app_file
    say "2. docker compose up --scale: four containers instead of one, and two again"
    app v1 up --detach
    await "app has no backend" quietly serves_by 1
    load_comes
    app v1 up --detach --no-recreate --scale app=4
    await "app has not four backends" quietly serves_by 4
    app v1 up --detach --no-recreate --scale app=2
    await "app has not two backends" quietly serves_by 2
    load_goes

    say "3. docker compose up with a new image"
    # Compose stops all old containers before it starts the new ones. With tcpgw.on_empty=drop clients that come between wait for them.
    load_comes
    app v2 up --detach --scale app=2
    await "app has not two backends" quietly serves_by 2
    load_goes

    say "4. A rollout: new containers beside the old ones, which are stopped when the new ones get connections"
    local old
    old=$(app_containers)
    load_comes
    app v3 up --detach --no-recreate --scale app=4
    await "app has not four backends" quietly serves_by 4
    # shellcheck disable=SC2086 # one word for each container
    { docker stop $old; docker rm $old; }
    load_goes
}

docker_under_load() {
    say "5. docker stop and docker restart of servers that end in good order"
    local one two
    # shellcheck disable=SC2046 # one word for each container
    set -- $(app_containers)
    one=$1 two=$2
    load_comes
    docker stop --time 5 "$one"
    docker start "$one"
    await "app has not two backends" quietly serves_by 2
    docker restart --time 5 "$two"
    await "app has not two backends" quietly serves_by 2
    load_goes

    say "6. docker kill: a server that ends without notice, and connections that it had not answered"
    load_comes
    docker kill "$one"
    await "app has not one backend" quietly serves_by 1
    load_goes "$few" "$abrupt"
    note "those that failed came in the milliseconds between the end of the server and the event of Docker"
    docker start "$one"
    await "app has not two backends" quietly serves_by 2

    say "7. A container that is killed because it uses too much memory"
    if [ "$(on_engine info --format '{{.MemoryLimit}}')" != true ]; then
        note "left out: this machine has no control group for memory"
        return
    fi
    docker run --detach --name greedy --network app_default --memory 24m --label tcpgw.port="$port" --label tcpgw.service=app \
        --label tcpgw.on_empty=drop app:v4 v4 greedy
    await "app has not three backends" quietly serves_by 3
    load_comes
    docker kill --signal USR1 greedy
    await "the container has not ended" is_killed greedy
    await "app has not two backends" quietly serves_by 2
    load_goes "$few" "$abrupt"
}

ipv6() {
    say "8. A network with IPv6"
    # This engine has no DOCKER-USER for IPv6. Newer ones have, and filter IPv6 by default.
    shown ip6tables -I FORWARD -m connmark --mark 0x800000/0x800000 -j ACCEPT
    on gateway ip6tables -I FORWARD -m connmark --mark 0x800000/0x800000 -j ACCEPT
    docker network create --ipv6 --subnet fd00:30::/64 six
    docker run --detach --name six --network six --label tcpgw.port=20006 app:v1 six patient
    await "clients by IPv6 are not served" quietly is_answered 2001:db8:1::1 20006 six
    await "clients by IPv4 are not served" quietly is_answered "$public" 20006 six
    tcpgw service show six
}
# All of some connections.
is_answered() {
    on client python3 scripts/lib/peer.py ask "$1" "$2" 20 | grep -F "\"answers\": {\"$3\": 20}"
}

crowd() {
    say "9. 30 containers at once"
    local begin=$SECONDS
    app v1 up --detach --scale crowd=30 crowd
    await "crowd has not 30 backends" quietly serves_by 30 crowd
    note "30 containers were started and served in $((SECONDS - begin)) s"
    load_comes 20007
    sleep 1
    load_goes
    local used
    used=$(json status --interval 0s | python3 -c 'import json, sys
[crowd] = [service for service in json.load(sys.stdin)["services"] if service["name"] == "crowd"]
print(sum(1 for backend in crowd["backends"] if backend["totals"]["connections"]))')
    [ "$used" -eq 30 ] || fail "$used of 30 containers got connections"
}

retirement() {
    say "10. Servers that ignore SIGTERM: their sessions end at the drain deadline, by tcpgw.on_retire"
    local way sessions=()
    for way in reset drop; do
        docker run --detach --name "deaf-$way" --network app_default --label tcpgw.port="$(port_of "$way")" \
            --label tcpgw.on_retire="$way" --label tcpgw.drain_timeout=1s app:v1 "$way" deaf
    done
    for way in reset drop; do
        await "deaf-$way gets no connections" quietly on client python3 scripts/lib/peer.py ask "$public" "$(port_of "$way")" 1
        ip netns exec "$prefix-client" python3 scripts/lib/peer.py hold "$public" "$(port_of "$way")" 10 >"$files/held-$way" 3>&- &
        sessions+=($!)
    done
    await "there are no sessions" quietly grep connected "$files/held-reset"
    await "there are no sessions" quietly grep connected "$files/held-drop"
    docker stop --time 6 deaf-reset deaf-drop
    wait "${sessions[@]}"
    ended_so reset reset 8
    ended_so drop "timed out" 10
    note "reset: $(tail -n 1 "$files/held-reset"); drop: $(tail -n 1 "$files/held-drop")"
    note "a client learns of a reset by what it sends next: one that waits for an answer, and has nothing to send, hears nothing either"
}
port_of() { case $1 in reset) echo 20004 ;; drop) echo 20005 ;; esac; }
# So many of the ten sessions at least have ended in this way, and the others without a word.
ended_so() {
    python3 -c 'import json, sys
way, end, least = sys.argv[2], sys.argv[3], int(sys.argv[4])
ended = json.loads(open(sys.argv[1]).read().splitlines()[-1])["ended"]
said, silent = ended.pop(f"{way} {end}", 0), ended.pop(f"{way} timed out", 0)
sys.exit(bool(ended) or said < least or said + silent != 10)' "$files/held-$1" "$@" ||
        fail "the sessions of on_retire=$1 ended otherwise: $(tail -n 1 "$files/held-$1")"
}

tcpgw_under_load() {
    say "11. tcpgw is killed, replaced by Compose, and replaced by the package on the host"
    load_comes
    docker kill broker-tcpgw-1
    broker up --detach tcpgw
    broker up --detach --force-recreate tcpgw
    await "tcpgw does not answer" quietly tcpgw service ls
    broker rm --stop --force tcpgw
    printf '[docker]\nsocket = "%s"\n' "$files/docker.sock" >"$files/config.toml"
    TCPGW_CONFIG=$files/config.toml
    start_daemon
    compose --project-name broker --file recipes/compose/compose.host.yaml up --detach
    await "the broker gets no connections" mqtt_works
    load_goes
}

broker() { compose --project-name broker --file recipes/compose/compose.yaml "$@"; }
app() {
    export APP_IMAGE=app:$1
    shift
    compose --project-name app --file "$files/app.yaml" "$@"
}
compose() {
    shown docker compose "$@"
    on_engine compose "$@" >"$files/said" 2>&1 || { cat "$files/said" >&2; fail "docker compose $* failed"; }
}
app_containers() { on_engine ps --quiet --filter label=com.docker.compose.project=app; }

write_app_file() {
    cat >"$files/app.yaml" <<'YAML'
services:
  app:
    image: ${APP_IMAGE}
    labels:
      tcpgw.port: 20003
      tcpgw.on_empty: drop
    stop_grace_period: 5s
  crowd:
    image: ${APP_IMAGE}
    labels:
      tcpgw.port: 20007
    profiles: [crowd]
YAML
}

mqtt_works() {
    local told=$files/told
    on client timeout 3 mosquitto_sub -h "$public" -t recipe -C 1 >"$told" 2>/dev/null 3>&- &
    local hearing=$!
    sleep 0.3
    quietly on client mosquitto_pub -h "$public" -t recipe -m hello || true
    wait "$hearing" && [ "$(cat "$told")" = hello ]
}

json() { on gateway "$binary" -o json "$@" || true; }
# Whether so many backends of app, or of another service, get new connections.
serves_by() {
    json status --interval 0s | python3 -c 'import json, sys
backends = [backend for service in json.load(sys.stdin)["services"] if service["name"] == sys.argv[2] for backend in service["backends"]]
serve = [1 for backend in backends if (backend["state"], backend["health"]) == ("active", "healthy")]
sys.exit(len(serve) != int(sys.argv[1]))' "$1" "${2-app}"
}
is_killed() { [ "$(on_engine inspect --format '{{.State.OOMKilled}} {{.State.Running}}' "$1")" = "true false" ]; }

main
