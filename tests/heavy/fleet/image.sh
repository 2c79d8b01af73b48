#!/bin/sh
# image.sh OUT BASE_IMAGE: builds the container image of this tree into OUT/image.tar.gz, with an engine of its own.
#   BASE_IMAGE   a command that loads a base image into the engine at DOCKER_HOST and prints its name last
# Needs root, dockerd and docker with BuildKit; the engine is stopped and its files are deleted at the end.
set -eu
out=$(cd "$1" && pwd)
shift
work=$(mktemp -d)
docker=${DOCKER:-/usr/bin/docker}
export DOCKER_HOST="unix://$work/docker.sock"
dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" -H "$DOCKER_HOST" \
  --iptables=false --ip-forward=false > "$work/log" 2>&1 &
engine=$!
clean() {
  kill "$engine" 2> /dev/null || true
  wait "$engine" 2> /dev/null || true
  rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM
tries=100
until "$docker" version > /dev/null 2>&1; do
  tries=$((tries - 1))
  [ $tries -gt 0 ] || { cat "$work/log" >&2; exit 1; }
  sleep 0.2
done
base=$("$@" | tail -n 1)
make image-amd64 DOCKER="$docker" BASE="$base" IMAGE_BUILD_FLAGS=--network=host IMAGE_DIR="$work/images"
mv "$work"/images/*-linux-amd64.tar.gz "$out/image.tar.gz"
