# shellcheck shell=bash
# Images for recipes, made of what this machine has: no registry is needed. recipes/lib.sh and recipes/engine.sh are read before.

# The server of the recipes, under names that it answers: app:NAME for each.
app_images() {
    local version
    mkdir "$files/image"
    build_app "$files/image/app" -static
    for version; do
        tar --create --directory "$files/image" app | on_engine import --change 'EXPOSE 3000' --change 'ENTRYPOINT ["/app"]' \
            --change "CMD [\"$version\", \"patient\"]" - "app:$version" >/dev/null
    done
}

# Debian's mosquitto with its libraries, which stands for eclipse-mosquitto: the same command, configuration and port.
mqtt_image() {
    local tree=$files/mqtt program library
    program=$(type -P mosquitto) || fail "no mosquitto: apt-get install mosquitto"
    install -D "$program" "$tree/usr/sbin/mosquitto"
    for library in $(ldd "$program" | grep -o '/[^ ]*'); do install -D "$library" "$tree$library"; done
    install -D -m 644 /dev/stdin "$tree/etc/passwd" <<<'mosquitto:x:1883:1883::/:/'
    install -D -m 644 /dev/stdin "$tree/etc/group" <<<'mosquitto:x:1883:'
    tar --create --directory "$tree" . | on_engine import --change 'EXPOSE 1883' \
        --change 'CMD ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]' - mqtt >/dev/null
    rm -r "$tree"
}

# Of the directory TCPGW_IMAGES, or made here: then cargo must be root's, too.
tcpgw_image() {
    local made=${TCPGW_IMAGES-}
    if [ -z "$made" ]; then
        made=$files/package
        scripts/package --image --binary "$binary" --to "$made" 2>&1
    fi
    on_engine load --quiet --input "$made"/tcpgw-image_*.tar
}
