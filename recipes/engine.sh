# shellcheck shell=bash
# A Docker engine of its own for a recipe, in the gateway's network namespace. recipes/lib.sh is read before.

docker() {
    shown docker "$@"
    on_engine "$@" >>"$files/said"
}
on_engine() { command docker --host "unix://$files/docker.sock" "$@"; }
iptables() {
    shown iptables "$@"
    on gateway iptables "$@"
}

# Starts an engine in the gateway's network namespace, with files, mounts and processes of its own, which end with its first process.
# It starts again whenever it ends, unless there is a file "$files/engine.away". What is given are further options of dockerd.
start_docker() {
    for program in dockerd docker; do
        type -P "$program" >/dev/null || fail "no $program: apt-get install docker.io"
    done
    # Docker sets the policy to DROP only if it switches forwarding on itself. Therefore forwarding is off here.
    on gateway sysctl -qw net.ipv4.ip_forward=0
    echo '{}' >"$files/engine.json"
    # `ip netns exec` would hide the control groups from the engine.
    # shellcheck disable=SC2016 # the shell in the namespace expands this
    nsenter --net="/run/netns/$prefix-gateway" \
        unshare --mount --pid --fork --kill-child --mount-proc sh -c \
        'mount -t tmpfs tmpfs /run; mkdir /run/tcpgw; [ ! -d "$TCPGW_RUN_DIR" ] || mount --bind "$TCPGW_RUN_DIR" /run/tcpgw; while :; do "$@"; while sleep 0.05; [ -e "$0" ]; do :; done; done' "$files/engine.away" \
        dockerd --host "unix://$files/docker.sock" --config-file "$files/engine.json" --data-root "$files/docker/data" \
        --exec-root "$files/docker/exec" --pidfile "$files/docker/pid" --storage-driver vfs --bridge none \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$prefix" "$@" >"$files/dockerd.log" 2>&1 3>&- &
    engine=$!
    await "dockerd does not answer: $(tail -n 3 "$files/dockerd.log")" quietly on_engine version
}

# Ends the engine until `engine_back`.
engine_away() {
    touch "$files/engine.away"
    pkill -TERM --parent "$(pgrep --parent "$engine")" dockerd
}
engine_back() { rm "$files/engine.away"; }

put_away() {
    [ -n "${engine-}" ] || return 0
    [ "$code" -eq 0 ] || tail -n 20 "$files/dockerd.log" >&2
    # All processes of the PID namespace end with its first process, the containers' processes included.
    { pkill -KILL --parent "$engine"; wait "$engine"; } 2>/dev/null || true
    for group in /sys/fs/cgroup/"$prefix" /sys/fs/cgroup/*/"$prefix"; do
        [ ! -d "$group" ] || await "$group cannot be removed" remove_group "$group"
    done
}
# A killed process leaves its control group a moment later.
remove_group() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -d "$1" ]; }
