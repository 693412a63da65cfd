# shellcheck shell=bash
# Compose for recipes: that of this machine, or else that of Debian 13, a plugin of docker in one file, which runs on Debian 12, too. It is
# kept in target/compose. recipes/lib.sh is read before.

need_compose() {
    local cache=target/compose
    quietly docker_alone compose version && return
    if [ ! -x "$cache/docker-compose" ]; then
        mkdir -p "$cache"
        fetch_compose "$cache" >"$cache/log" 2>&1 || { tail -n 5 "$cache/log" >&2; fail "no Compose: apt-get install docker-compose, on Debian 13"; }
    fi
    export DOCKER_CONFIG=$files/docker-config
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    ln -s "$(realpath "$cache/docker-compose")" "$DOCKER_CONFIG/cli-plugins/docker-compose"
    quietly docker_alone compose version || fail "Compose does not run: $cache/docker-compose"
}

docker_alone() { command docker "$@"; }

# Lists of its own, so that nothing of this machine's packages changes.
fetch_compose() (
    set -e
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # apt-get expands it
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" | sed -n 1p)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} trixie main" >"$work/list"
    apt="apt-get -q -o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$work/lists
        -o Dir::Cache=$work -o Acquire::Languages=none -o APT::Sandbox::User=root"
    $apt update
    cd "$work"
    $apt download docker-compose
    dpkg-deb -x docker-compose_*.deb tree
    cd "$OLDPWD"
    mv "$work/tree/usr/libexec/docker/cli-plugins/docker-compose" "$1/docker-compose"
)
