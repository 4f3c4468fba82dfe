#!/usr/bin/env bash
# Builds the base image of docker/engine-cpu.Dockerfile where no image registry is reached: a minimal Debian 12
# with Python 3.11, from Debian packages alone. Needs root, debootstrap and a Docker daemon. The result stands in
# for `library/python:3.11-slim-bookworm`: set LAB_BASE_IMAGE to its name.
#
#   docker/base-image.sh [NAME] [DEBIAN_MIRROR]
set -euo pipefail

name=${1:-inferlab/base:bookworm}
mirror=${2:-${LAB_DEBIAN_MIRROR:-}}

if docker image inspect "$name" >/dev/null 2>&1; then
    echo "base image $name is there"
    exit 0
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# python3-dev: torch.compile builds C++ against Python.h when the engine starts.
debootstrap --variant=minbase --include=ca-certificates,python3,python3-dev,python3-venv \
    bookworm "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    exit 1
}
rm -rf "$root.log" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$name" >/dev/null
docker image inspect --format "base image $name: {{.Size}} bytes" "$name"
