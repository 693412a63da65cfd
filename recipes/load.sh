# shellcheck shell=bash
# A set load of new connections, for recipes: how many come each second does not depend on how they fare. recipes/lib.sh is read before.

rate=500

build_load() {
    cc -O2 -Wall -o "$files/load" recipes/load.c
}

# Connections begin, to a port if it is given, and go on while the next steps are done.
# shellcheck disable=SC2120 # most have no arguments
load_comes() {
    ip netns exec "$prefix-client" "$files/load" "$public" "${1-$port}" "$rate" 198.18.0.1 >"$files/offered" 3>&- &
    loading=$!
    sleep 0.5
}

# They end. None has failed, or at most so many, in these ways only, separated by commas.
# shellcheck disable=SC2120 # most have no arguments
load_goes() {
    sleep 0.5
    kill "$loading"
    wait "$loading"
    python3 - "$files/offered" "${1-0}" "${2-}" <<'PYTHON' || fail "connections should not have failed so"
import json, sys
said, most, ways = json.load(open(sys.argv[1])), int(sys.argv[2]), sys.argv[3].split(",")
def words(counts): return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"
print(f"   load: {said['offered']} connections offered in {said['seconds']} s; answered {said['ok']} ({words(said['answers'])}); "
      f"failed {said['failed']} ({words(said['failures'])}); {said['slow']} took more than 0.9 s, {said['resent']} sent something again, the longest {said['longest_ms']} ms")
sys.exit(said["ok"] + said["failed"] != said["offered"] or said["failed"] > most or not set(said["failures"]) <= set(ways))
PYTHON
}
