#!/bin/sh
# Installs what the tests need beside Python: a browser, a load generator, an MQTT broker, an OCI registry, kustomize,
# GNU parallel, logrotate, man, the shells that complete and promtool.
# Through apt where it may; says what is missing else.
set -eu
missing=''
command -v chromium >/dev/null || missing="$missing chromium"
command -v wrk >/dev/null || missing="$missing wrk"
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing="$missing mosquitto"
command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
parallel --version 2>/dev/null | grep -q '^GNU parallel' || missing="$missing parallel"
command -v zsh >/dev/null || missing="$missing zsh"
command -v fish >/dev/null || missing="$missing fish"
command -v man >/dev/null || missing="$missing man-db"
command -v logrotate >/dev/null || [ -x /usr/sbin/logrotate ] || missing="$missing logrotate"
command -v nft >/dev/null || [ -x /usr/sbin/nft ] || missing="$missing nftables"
command -v ip >/dev/null || [ -x /sbin/ip ] || missing="$missing iproute2"
# Unpacked beside the tests, not installed: the registry and Prometheus would start and listen on every address.
apart=''
for program in docker-registry kustomize prometheus; do
  command -v $program >/dev/null || [ -x .cache/$program/usr/bin/$program ] || apart="$apart $program"
done
[ -n "$missing$apart" ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "the tests need$missing$apart: install them, or run make test as root on Debian or Ubuntu" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
[ -z "$missing" ] || apt-get install -y -qq --no-install-recommends $missing >/dev/null

# Puts a package's files below .cache/NAME. What this system's own release lacks comes from Debian 13, apt checking who
# signed it: static programs, which run on older systems as well.
unpack() (
  mkdir -p ".cache/$1/apt/lists/partial" ".cache/$1/apt/archives/partial" && cd ".cache/$1" || exit 1
  apt-get download -qq -o APT::Sandbox::User=root "$1" >/dev/null 2>&1 || newer "$1" || exit 1
  dpkg-deb -x "$1"_*.deb . && rm -rf "$1"_*.deb apt
)
newer() {
  # shellcheck disable=SC2016  # apt fills it in
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >apt/sources.list
  name=$1
  set -- -qq -o Dir::Etc::SourceList="$PWD/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root \
    -o Dir::State::Lists="$PWD/apt/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$PWD/apt"
  apt-get "$@" update && apt-get "$@" download "$name" >/dev/null
}
for program in $apart; do
  unpack "$program" || { echo "the tests need $program, which apt has not here: install it" >&2; exit 1; }
done
