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

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root to run '$*', and there is no sudo: run this as root"
    fi
}
