# shellcheck shell=bash
# The environment in which the recipes run: a gateway with its daemon, machines behind it and clients in front of it, in
# network namespaces that end with the script. The steps to copy are in the recipes themselves.

public=203.0.113.1
port=20003

# The machines of vagrant/topology, and a daemon in the gateway of them. What is given is done to the gateway before.
stage_up() {
    name=$1
    [ "$(id -u)" -eq 0 ] || fail "needs root for network namespaces: run this as root"
    binary=$(realpath -e "${TCPGW_BINARY:-target/release/tcpgw}" 2>/dev/null) ||
        fail "no ${TCPGW_BINARY:-target/release/tcpgw}: run cargo build --release, or set TCPGW_BINARY"
    prefix=recipe-$$
    files=$(mktemp -d)
    export TCPGW_RUN_DIR=$files/run TCPGW_CONFIG=/dev/null TCPGW_SOCKET=$files/tcpgw.sock TCPGW_STORE=$files/tcpgw.db
    trap stage_down EXIT
    trap 'exit 130' INT TERM
    exec 3>&1
    vagrant/topology up "$prefix"
}

stage_down() {
    code=$?
    trap - EXIT INT TERM
    [ -z "$(type -t put_away)" ] || put_away || code=1
    # The shell would name every process that is killed by this.
    { vagrant/topology down "$prefix"; wait; } 2>/dev/null
    [ "$code" -eq 0 ] || tail -n 20 "$files/log" >&2 2>/dev/null || true
    rm -rf "$files"
    [ "$code" -eq 0 ] || printf '%s ended early (exit code %d)\n' "$name" "$code" >&2
    exit "$code"
}

start_daemon() {
    ip netns exec "$prefix-gateway" "$binary" daemon >>"$files/log" 2>&1 3>&- &
    # shellcheck disable=SC2034 # for recipes that reload it
    daemon=$!
    await "the daemon does not answer" quietly tcpgw service ls
}

# The server of the recipes.
build_app() {
    type -P cc >/dev/null || fail "no cc: apt-get install build-essential"
    cc -O2 -Wall -o "$@" recipes/app.c
}

# tcpgw as one types it on the gateway.
tcpgw() {
    shown tcpgw "${@/#* */\'&\'}"
    on gateway "$binary" "$@"
}

# A command on one of the machines; the gateway shares its processes and files with all of them.
on() {
    host=$1
    shift
    ip netns exec "$prefix-$host" "$@"
}

# 20 clients that hold a connection and talk on it, and some that come and go, four at a time.
clients_come() {
    # Written out, so that $! is the program and not a shell around it.
    ip netns exec "$prefix-client" python3 scripts/lib/peer.py hold "$public" "$port" 20 >"$files/held" 3>&- &
    holding=$!
    ip netns exec "$prefix-client" python3 scripts/lib/peer.py keep-asking "$public" "$port" >"$files/asked" 3>&- &
    asking=$!
    await "the clients do not get in" clients_talk
    note "20 clients hold a connection and talk on it; others come and go, four at a time"
}
clients_talk() {
    on gateway conntrack --dump --proto tcp --orig-port-dst "$port" --state ESTABLISHED 2>/dev/null |
        awk 'END { exit NR < 20 }'
}

# What the clients saw: no connection failed, and the sessions ended in these ways and in no other.
clients_leave() {
    kill "$asking"
    # Whose sessions have all ended has nothing left to do.
    kill "$holding" 2>/dev/null || true
    wait "$asking" "$holding"
    python3 - "$files/asked" "$files/held" "$@" <<'PYTHON' || fail "the clients should have seen something else"
import json, sys
# The last line has the totals.
asked, held = (json.loads(open(path).read().splitlines()[-1]) for path in sys.argv[1:3])
def words(counts): return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"
print(f"   short connections: {asked['ok']} ok, {asked['failed']} failed, longest {asked['longest_ms']} ms; answered by {words(asked['answers'])}")
print(f"   long ones: {words(held['alive'])} alive; ended: {words(held['ended'])}")
print(*(f"   failed: {why}" for why in asked["failures"]), sep="\n", end="")
sys.exit(asked["failed"] != 0 or set(held["ended"]) != set(sys.argv[3:]) or held["alive"] != {})
PYTHON
}

await() {
    trouble=$1
    shift
    deadline=$((SECONDS + 30))
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$trouble"
        sleep 0.05
    done
}

# Whether somebody listens there, as the gateway sees it.
answers() { on gateway python3 -c 'import socket, sys; socket.create_connection(sys.argv[1:], 1)' "$@" 2>/dev/null; }

quietly() { "$@" >/dev/null 2>&1 3>/dev/null; }
shown() { printf '$ %s\n' "$*" >&3; }
say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
fail() { printf '%s: %s\n' "${name-recipes}" "$*" >&2; exit 1; }
