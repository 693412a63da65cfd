# shellcheck shell=bash
# An image for container engines, in the form that `docker load` and `podman load` read (docker-archive). It is written without an
# engine. scripts/package reads this, and has set the variables.
# shellcheck disable=SC2154

# The program, the libraries that it is linked to as this machine has them, certificates of authorities for hooks, and a configuration
# that follows the engine. There is no shell in it.
make_image() {
    command -v sha256sum >/dev/null || fail "needs sha256sum: apt-get install coreutils"
    install -D "$binary" "$tree/usr/bin/tcpgw"
    strip_program
    copy_libraries
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
    install -D -m 644 dist/image/config.toml "$tree/etc/tcpgw/config.toml"
    install -D -m 644 /usr/lib/os-release "$tree/etc/os-release"
    mkdir -p "$tree/usr/share/doc/tcpgw" "$tree/run/tcpgw" "$tree/var/lib/tcpgw" "$tree/tmp"
    chmod 1777 "$tree/tmp"
    write_copyright >"$tree/usr/share/doc/tcpgw/copyright"
    copy_licences
    archive_image
}

# Of Debian, with their licences, and their versions as scanners of images look for them.
copy_libraries() {
    local library package
    for library in $(ldd "$tree/usr/bin/tcpgw" | grep -o '/[^ ]*'); do
        install -D -m 755 "$library" "$tree$library"
        package=$(package_of "$library")
        package=${package%%:*}
        [ ! -e "$tree/var/lib/dpkg/status.d/$package" ] || continue
        install -D -m 644 /dev/null "$tree/var/lib/dpkg/status.d/$package"
        dpkg-query --status "$package" >"$tree/var/lib/dpkg/status.d/$package"
        install -D -m 644 "/usr/share/doc/$package/copyright" "$tree/usr/share/doc/$package/copyright"
    done
}

# Texts of licences that the files named copyright refer to.
copy_licences() {
    local licence
    for licence in $(grep -rhoE 'common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$tree/usr/share/doc" | LC_ALL=C sort -u); do
        install -D -m 644 "/usr/share/$licence" "$tree/usr/share/$licence"
    done
}

# dpkg knows a file by the name that it was installed under, with /usr or without.
package_of() {
    local name
    for name in "$1" "${1#/usr}" "/usr$1" "$(realpath "$1")"; do
        if dpkg-query --search "$name" 2>/dev/null; then return; fi
    done
    fail "no package has $1"
}

archive_image() {
    local image archive=$work/archive layer config tag=${version//[+~]/-}
    image=$to/tcpgw-image_${version}_$(dpkg-architecture -qDEB_HOST_ARCH).tar
    mkdir -p "$archive" "$to"
    reproducible_tar "$tree" >"$archive/layer.tar"
    layer=$(sum_of "$archive/layer.tar")
    image_config "$layer" >"$archive/config"
    config=$(sum_of "$archive/config").json
    mv "$archive/config" "$archive/$config"
    printf '[{"Config": "%s", "RepoTags": ["tcpgw:latest", "tcpgw:%s"], "Layers": ["layer.tar"]}]\n' "$config" "$tag" >"$archive/manifest.json"
    reproducible_tar "$archive" >"$image"
    say "made $image, $(($(stat -c %s "$image") / 1000000)) MB: docker load --input $image"
}

reproducible_tar() {
    tar --create --directory "$1" --format=gnu --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner .
}

sum_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# The version is checked, and nothing else comes from outside.
image_config() {
    local architecture revision created
    architecture=$(dpkg-architecture -qDEB_HOST_ARCH)
    created=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
    # Of another program, or of changed files, it is not known.
    revision=
    if [ -z "$is_given" ] && [ -z "$(git status --porcelain 2>/dev/null)" ]; then
        revision=$(git rev-parse HEAD 2>/dev/null || true)
    fi
    revision=${revision:+"\"org.opencontainers.image.revision\": \"$revision\","}
    cat <<JSON
{
  "created": "$created",
  "architecture": "${architecture/armhf/arm}",
  "os": "linux",
  "config": {
    "Entrypoint": ["/usr/bin/tcpgw"],
    "Cmd": ["daemon"],
    "Env": ["PATH=/usr/bin"],
    "WorkingDir": "/",
    "Labels": {
      "org.opencontainers.image.title": "tcpgw",
      "org.opencontainers.image.description": "TCP gateway in front of containers, done by nftables",
      "org.opencontainers.image.version": "$version",
      $revision
      "org.opencontainers.image.created": "$created",
      "org.opencontainers.image.url": "$(sed -n 's/^Homepage: //p' dist/debian/control)",
      "org.opencontainers.image.licenses": "$(field_of_manifest license)"
    }
  },
  "rootfs": {"type": "layers", "diff_ids": ["sha256:$1"]},
  "history": [{"created": "$created", "comment": "scripts/package --image"}]
}
JSON
}
