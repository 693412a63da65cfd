# shellcheck shell=bash
# What scripts/demo shows things with: words and colours, waiting, and commands in the namespaces of one demo.
# It needs `prefix` (of the namespaces), `files` (a directory), `binary` and `public` from the script that reads this.

# No command of the demo takes longer than this, in seconds, unless something is wrong.
patience=60

bold='' dim='' green='' cyan='' off='' breath=0
# Colours, and a moment before each act, are for people only: `plain` (not empty), NO_COLOR and whatever is no terminal go without.
dress() {
    [ -t 1 ] && [ -z "${plain-}${NO_COLOR-}" ] && [ "${TERM-dumb}" != dumb ] || return 0
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' cyan=$'\e[36m' off=$'\e[0m' breath=1.5
}

say() { sleep "$breath"; printf '\n%s== %s%s\n' "$bold" "$*" "$off"; }
note() { printf '   %s%s%s\n' "$dim" "$*" "$off"; }
good() { printf '   %sok:%s %s\n' "$green" "$off" "$*"; }
fail() { printf 'scripts/demo: %s\n' "$*" >&2; exit 1; }
# The line that is run next. File 3 is shown also while the output is kept.
prompt() { printf '%s$ %s%s\n' "$cyan" "$*" "$off" >&3; }

# A line of the table at the end.
row() { printf '   %-42s %s\n' "$1" "$2" >>"$files/table"; }

# Runs tcpgw in the gateway on files of the demo, and shows how.
tcpgw() {
    shown=("${@/#* */\'&\'}")
    prompt "tcpgw ${shown[*]}"
    arguments=("$@")
    case ${arguments[-1]} in
    *.json) arguments[-1]=$files/${arguments[-1]} ;;
    esac
    in_gateway "${arguments[@]}"
}

in_gateway() { as gateway "$binary" "$@"; }
client() { as client python3 scripts/lib/peer.py "$@"; }

as() {
    host=$1
    shift
    timeout --foreground "$patience" ip netns exec "$prefix-$host" "$@"
}

# In the background: `started` is the program itself, and not a shell around it.
start() {
    host=$1
    shift
    ip netns exec "$prefix-$host" "$@" >/dev/null 2>&1 3>&- &
    started=$!
}

await_listener() { await "no server listens in $1" listens "$1" "$2"; }
listens() { [ -n "$(as "$1" ss -Hltn "sport = :$2")" ]; }

await() {
    trouble=$1
    shift
    deadline=$((SECONDS + 20))
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$trouble"
        sleep 0.05
    done
}

# Waits for the end of a process of ours that was told to end; its exit code.
await_end() {
    await "process $1 does not end" has_ended "$1"
    wait "$1"
}
has_ended() { ! kill -0 "$1" 2>/dev/null; }

# The shell would say that it was killed.
kill_hard() { { kill -9 "$1" && wait "$1"; } 2>/dev/null || true; }

# A value of the JSON on standard input, by its keys; 0 if it is not there.
field() {
    python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value.get(key, 0)
print(", ".join(f"{k}: {v}" for k, v in value.items()) or "none" if isinstance(value, dict)
      else value if isinstance(value, str) else int(value))' "$@"
}

# Milliseconds of the clock.
now() { printf '%s\n' "$((${EPOCHREALTIME//[.,]/} / 1000))"; }
megabytes() { printf '%d.%d MB' "$(($1 / 1000000))" "$(($1 / 100000 % 10))"; }
within() { [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]; }
