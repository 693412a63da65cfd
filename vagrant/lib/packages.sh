# shellcheck shell=sh
# Debian packages for what the scripts here need. The script that reads this has `say` and `fail`.

# Installs what is missing of "WHAT PACKAGE" lines: WHAT is a command, a file, or a pkg-config module as NAME.pc.
install_missing() {
    packages=$(echo "$1" | missing)
    [ -z "$packages" ] || install_packages "$packages"
}

missing() {
    while read -r what package; do
        case $what in
        '') ;;
        /*) [ -e "$what" ] || echo "$package" ;;
        *.pc) pkg-config --exists "${what%.pc}" 2>/dev/null || echo "$package" ;;
        *) command -v "$what" >/dev/null || echo "$package" ;;
        esac
    done
}

install_packages() {
    # shellcheck disable=SC2086 # one word per package
    set -- $1
    say "installing $*"
    command -v apt-get >/dev/null || fail "needs $*, and there is no apt-get to install them with"
    as_root apt-get -q update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}

# For the programs in them. Whoever wants haproxy to compare with does not want it to take this machine's port 80: not now,
# nor after the next boot.
install_without_services() {
    keep_services_off
    install_packages "$1"
    for package in $1; do
        case $package in
        haproxy | nginx | nftlb | containerd | mosquitto | prometheus) as_root systemctl --quiet disable "$package" 2>/dev/null || true ;;
        docker.io) as_root systemctl --quiet disable docker.service docker.socket 2>/dev/null || true ;;
        esac
    done
}

keep_services_off() {
    policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    trap 'as_root rm -f "$policy"' EXIT
    # 101: "action forbidden by policy".
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root to run '$*', and there is no sudo: run this as root"
    fi
}
