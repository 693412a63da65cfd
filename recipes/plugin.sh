# shellcheck shell=bash
# Compose for recipes: that of this machine, or else that of Debian 13, a plugin of docker in one file, which runs on Debian 12, too. It is
# kept in target/compose. recipes/lib.sh is read before.

compose_cache=target/compose

# Fetches it, if there is none.
fetch_compose() {
    has_compose || [ -x "$compose_cache/docker-compose" ] && return
    mkdir -p "$compose_cache"
    unpack_compose >"$compose_cache/log" 2>&1 || { tail -n 5 "$compose_cache/log" >&2; fail "no Compose: apt-get install docker-compose, of Debian 13"; }
}

# Makes `docker compose` use it.
use_compose() {
    has_compose && return
    export DOCKER_CONFIG=$files/docker-config
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    ln -s "$(realpath "$compose_cache/docker-compose")" "$DOCKER_CONFIG/cli-plugins/docker-compose"
    has_compose || fail "Compose does not run: $compose_cache/docker-compose"
}

has_compose() { quietly command docker compose version; }

# With lists of its own, so that nothing of this machine's packages changes.
unpack_compose() (
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # apt-get expands it
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" | sed -n 1p)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} trixie main" >"$work/list"
    apt="apt-get -q -o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$work/lists
        -o Dir::Cache=$work -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Sandbox::User=root"
    $apt update &&
        (cd "$work" && $apt download docker-compose && dpkg-deb -x docker-compose_*.deb tree) &&
        mv "$work/tree/usr/libexec/docker/cli-plugins/docker-compose" "$compose_cache/docker-compose"
)
