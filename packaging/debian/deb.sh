#!/bin/sh
# deb.sh BINARY OUT: makes OUT/edge-inference-appliance_VERSION_ARCH.deb from the binary that the offline kit has as well.
#   BINARY   what packaging/pyinstaller/build.sh left: appliance/, sbom.cdx.json, LICENSES.txt
#   APPLIANCE_PYTHON   a Python with the device's libraries, for the manual page (python3)
#   DEBFULLNAME, DEBEMAIL   who maintains the package: whoever builds it for others (Debian's own variables; see debchange)
# dpkg-deb alone: there is nothing left to build that debhelper would know of. The same inputs give the same bytes.
set -eu
umask 022
unset CDPATH TAR_OPTIONS GZIP POSIXLY_CORRECT # of the caller: the same inputs give the same bytes
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
binary=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
name=edge-inference-appliance

# Read, not run: the binary may be another processor's.
version=$(sed -n '/^Version: /{s///p;q;}' "$binary"/appliance/_internal/edge_inference_appliance-*.dist-info/METADATA)
elf=$(od -An -tu1 -j18 -N1 "$binary/appliance/appliance" | tr -d ' ') # ELF's e_machine
case $elf in 62) arch=amd64 ;; 183) arch=arm64 ;; *) echo "unknown processor $elf in $binary" >&2; exit 1 ;; esac
glibc=$(find "$binary/appliance" -type f \( -name '*.so*' -o -name appliance \) -exec readelf --version-info {} + 2> /dev/null |
  grep -o 'GLIBC_2\.[0-9]*' | sort -t . -k 2 -n -u | tail -n 1 | sed 's/GLIBC_//')
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2> /dev/null || date +%s)}
export SOURCE_DATE_EPOCH # dpkg-deb reads it
# A SemVer pre-release (1.0.0-rc.1) comes before its release in Debian's order too.
debian=$(printf '%s' "$version" | sed 's/-/~/')

# Where nobody is named, an address of the domain that never exists (RFC 2606) says so.
maintainer="${DEBFULLNAME:-Nobody was named} <${DEBEMAIL:-nobody@example.invalid}>"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
mkdir -p "$tree/DEBIAN" "$tree/usr/lib/appliance" "$tree/usr/bin" "$tree/lib/systemd/system" "$tree/etc/appliance" \
  "$tree/usr/share/doc/$name" "$tree/usr/share/lintian/overrides" "$tree/usr/share/man/man1"
cp -a "$binary/appliance" "$tree/usr/lib/appliance/program"
chmod -R u=rwX,go=rX "$tree/usr/lib/appliance"
# Libraries are mapped, never run.
find "$tree/usr/lib/appliance/program" -type f -name '*.so*' -exec chmod 644 {} +
for unit in appliance.service appliance-pull.service appliance-pull.timer appliance-score@.service appliance-score@.timer; do
  sed 's|@PREFIX@/current|/usr/lib/appliance|; s|@PREFIX@|/usr/lib/appliance|' "$source/packaging/systemd/$unit" \
    > "$tree/lib/systemd/system/$unit"
done
cp "$source/packaging/offline/appliance.toml" "$tree/etc/appliance/appliance.toml"
cp "$here/appliance.sh" "$tree/usr/bin/appliance"
chmod 755 "$tree/usr/bin/appliance"

doc=$tree/usr/share/doc/$name
cp "$here/copyright" "$binary/sbom.cdx.json" "$doc/"
gzip -n -9 < "$binary/LICENSES.txt" > "$doc/LICENSES.txt.gz"
day=$(date -u -R -d "@$SOURCE_DATE_EPOCH")
printf '%s (%s) stable; urgency=medium\n\n  * Release %s; see CHANGELOG.md of the project.\n\n -- %s  %s\n' \
  "$name" "$debian" "$version" "$maintainer" "$day" | gzip -n -9 > "$doc/changelog.gz"
# From the help of this tree's commands, which are the binary's.
PYTHONPATH="$source" "${APPLIANCE_PYTHON:-python3}" "$here/man.py" "$version" --binary > "$tree/usr/share/man/man1/appliance.1"
gzip -n -9 "$tree/usr/share/man/man1/appliance.1"
cp "$here/lintian-overrides" "$tree/usr/share/lintian/overrides/$name"

echo /etc/appliance/appliance.toml > "$tree/DEBIAN/conffiles"
for script in postinst prerm postrm; do
  cp "$here/$script" "$tree/DEBIAN/$script"
  chmod 755 "$tree/DEBIAN/$script"
done
size=$(du -sk --apparent-size "$tree" | cut -f 1)
sed "s/@VERSION@/$debian/; s/@ARCH@/$arch/; s/@GLIBC@/$glibc/; s/@SIZE@/$size/; s/@MAINTAINER@/$(printf '%s' "$maintainer" | sed 's/[&\/]/\\&/g')/" "$here/control" > "$tree/DEBIAN/control"
(cd "$tree" && find . -type f ! -path './DEBIAN/*' | sed 's|^\./||' | LC_ALL=C sort | xargs -d '\n' md5sum) > "$tree/DEBIAN/md5sums"
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# gzip: every dpkg reads it, and xz would take minutes to spare a quarter.
dpkg-deb --root-owner-group -Zgzip --build "$tree" "$out/${name}_${debian}_$arch.deb"
