#!/bin/sh
# Installs what the tests need beside Python: a browser, a load generator and an MQTT broker. Through apt where it may; says what is missing else.
set -eu
missing=''
command -v chromium >/dev/null || missing="$missing chromium"
command -v wrk >/dev/null || missing="$missing wrk"
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing="$missing mosquitto"
command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
command -v nft >/dev/null || [ -x /usr/sbin/nft ] || missing="$missing nftables"
command -v ip >/dev/null || [ -x /sbin/ip ] || missing="$missing iproute2"
[ -z "$missing" ] && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of words
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "the tests need$missing: install them, or run make test as root on Debian or Ubuntu" >&2
  exit 1
fi
