#!/bin/sh
# Installs what the fleet's hosts and the image of the container method need on this machine: Debian or Ubuntu, as root.
set -eu
missing=''
want() { command -v "$1" > /dev/null || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
want systemd-nspawn systemd-container
want mmdebstrap mmdebstrap
want arch-test arch-test
want nft nftables
want ip iproute2
want ssh openssh-client
want dockerd docker.io
want iptables iptables
want objdump binutils
[ -n "$missing" ] || exit 0
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of words
  apt-get install -y -qq --no-install-recommends $missing > /dev/null
else
  echo "the fleet test needs$missing: install them, or run it as root on Debian or Ubuntu" >&2
  exit 1
fi
