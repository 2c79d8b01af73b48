#!/bin/sh
# kit.sh BINARY OUT [BUNDLE...]: makes OUT/appliance-VERSION-linux-ARCH.tar.gz, all that a host without internet needs.
#   BINARY         what packaging/pyinstaller/build.sh left: appliance/, sbom.cdx.json, LICENSES.txt
#   KEY=FILE       private key (PEM) that signs the kit; APPLIANCE_KEY_PASSWORD_FILE where it is encrypted
#   SITE=FOLDER    the documentation site (make docs), which travels as docs.tar.gz; unpacked, its pages open from a file
#   APPLIANCE=...  the command that signs with it (appliance)
#   SOURCE_DATE_EPOCH   the time of the files in the archive; the last commit's by default, so that kits can be compared
# The program travels as one archive in the kit: a FAT stick keeps neither links nor modes.
set -eu
umask 022
unset CDPATH TAR_OPTIONS GZIP POSIXLY_CORRECT # of the caller: the same inputs give the same bytes
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
binary=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
shift 2

# Read, not run: the binary may be another processor's.
version=$(sed -n '/^Version: /{s///p;q;}' "$binary"/appliance/_internal/edge_inference_appliance-*.dist-info/METADATA)
elf=$(od -An -tu1 -j18 -N1 "$binary/appliance/appliance" | tr -d ' ') # ELF's e_machine
case $elf in 62) arch=x86_64 ;; 183) arch=aarch64 ;; *) echo "unknown processor $elf in $binary" >&2; exit 1 ;; esac
date=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || date +%s)}
name=appliance-$version-linux-$arch
kit=$out/$name
pack() { tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$date" --format=gnu "$@"; }

rm -rf "$kit" "$kit.tar.gz"
mkdir -p "$kit"
cp "$here/install.sh" "$here/README.txt" "$here/appliance.toml" "$source/packaging/systemd/appliance.service" \
  "$source/packaging/systemd/appliance-pull.service" "$source/packaging/systemd/appliance-pull.timer" \
  "$source/packaging/systemd/appliance-score@.service" "$source/packaging/systemd/appliance-score@.timer" "$kit/"
[ -z "${SITE:-}" ] || pack -C "$(dirname "$SITE")" -cf - "$(basename "$SITE")" | gzip -n -9 > "$kit/docs.tar.gz"
cp "$source/LICENSE" "$binary/LICENSES.txt" "$binary/sbom.cdx.json" "$kit/"
for bundle in "$@"; do
  mkdir -p "$kit/bundles"
  cp "$bundle" "$kit/bundles/"
  # beside each bundle, what is in it and how well it was converted
  "${APPLIANCE_PYTHON:-python3}" "$source/packaging/sbom/bundle.py" "$bundle" > "$kit/bundles/$(basename "$bundle" .bundle).cdx.json"
done

# Where it runs is measured, not claimed: the newest symbol of the C library that any part asks for.
glibc=$(find "$binary/appliance" -type f \( -name '*.so*' -o -name appliance \) -exec readelf --version-info {} + 2> /dev/null |
  grep -o 'GLIBC_2\.[0-9]*' | sort -t . -k 2 -n -u | tail -n 1 | sed 's/GLIBC_//')
(cd "$binary" && find appliance -type f | LC_ALL=C sort | xargs -d '\n' sha256sum | sed 's|  appliance/|  program/|') > "$kit/FILES.sha256"
pack -C "$binary" --transform='s|^appliance|program|' -cf "$kit/program.tar" appliance
cat > "$kit/kit.conf" <<CONF
version=$version
arch=$arch
glibc=$glibc
kibibytes=$(du -sk "$binary/appliance" | cut -f 1)
CONF
(cd "$kit" && find . -type f | sed 's|^\./||' | LC_ALL=C sort | xargs -d '\n' sha256sum) > "$out/SHA256SUMS.$$"
mv "$out/SHA256SUMS.$$" "$kit/SHA256SUMS"
[ -z "${KEY:-}" ] || ${APPLIANCE:-appliance} sign "$kit" --key "$KEY"
pack -C "$out" -cf - "$name" | gzip -n -6 > "$kit.tar.gz"
echo "$kit.tar.gz: $(($(wc -c < "$kit.tar.gz") / 1048576)) MiB, for glibc $glibc or later${KEY:+, signed}"
