#!/bin/sh
# Installs the packages that stand behind the last line, a tar in base64. Made and run by bootstrap.yml.
set -eu
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
sed '1,/^# packages follow$/d' "$0" | base64 -d | tar -xf - -C "$there"
find "$there" -name '*.deb' > "$there/debs"
find "$there" -name '*.rpm' > "$there/rpms"
if [ -s "$there/debs" ] && command -v apt-get > /dev/null; then
  # It brings them into the order that they need. It knows of these alone, so that nothing is asked of a network.
  mkdir -p "$there/lists/partial"
  export DEBIAN_FRONTEND=noninteractive
  xargs apt-get install -y -q --no-install-recommends -o "Dir::State::Lists=$there/lists" < "$there/debs"
elif [ -s "$there/debs" ]; then
  xargs dpkg --install < "$there/debs"
elif [ -s "$there/rpms" ]; then
  xargs rpm --upgrade --replacepkgs < "$there/rpms"
else
  echo 'the archive holds neither .deb nor .rpm files' >&2
  exit 1
fi
exit 0
# packages follow
