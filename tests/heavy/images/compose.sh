#!/bin/sh
# compose.sh DIR: prints a command that is docker compose of version 2: this machine's, or that of Debian 13's package, unpacked
# in DIR. (Debian 12 has only version 1, which does not know all that compose.yml says.)
set -eu
if docker compose version > /dev/null 2>&1; then
  echo docker compose
  exit 0
fi
mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
cd "$1"
plugin=$PWD/x/usr/libexec/docker/cli-plugins/docker-compose
if [ ! -x "$plugin" ]; then
  mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n1)}
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$mirror" > sources.list
  apt="-qq -o Dir::Etc::SourceList=$PWD/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$PWD/lists
    -o Dir::State::status=/dev/null -o Dir::Cache=$PWD/cache -o APT::Sandbox::User=root -o Acquire::Languages=none"
  # shellcheck disable=SC2086  # a list of options
  apt-get $apt update >&2
  # shellcheck disable=SC2086
  apt-get $apt download docker-compose >&2
  dpkg-deb -x docker-compose_*.deb x
fi
echo "$plugin"
