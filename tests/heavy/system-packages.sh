#!/bin/sh
# Installs what the tests of the packages need beside Python: a compiler, tracing, network namespaces, an MQTT broker. Through
# apt where it may; says what is missing else.
set -eu
missing=''
PATH=$PATH:/usr/sbin:/sbin
need() { command -v "$1" > /dev/null || missing="$missing $2"; }
need cc 'gcc libc6-dev'
need strace strace
need mosquitto mosquitto
need mosquitto_pub mosquitto-clients
need nft nftables
need ip iproute2
need readelf binutils
need lintian lintian
[ -z "$missing" ] && exit 0
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of words
  apt-get install -y -qq --no-install-recommends $missing > /dev/null
else
  echo "the tests need$missing: install them, or run this as root on Debian or Ubuntu" >&2
  exit 1
fi
