#!/bin/sh
# old-root.sh ROOT [ARCH NATIVE]: makes a Debian 11 root (glibc 2.31) with CPython 3.11 in /opt/python and OpenSSL 3.5 in
# /opt/openssl, to build the binary in.
# The binary takes the C library of the host it runs on, so it is built on the oldest that is to be supported.
# Needs root, mmdebstrap, and an apt whose mirror has bullseye, bookworm and trixie. Run again, it finds what is done.
# ARCH is another processor (arm64), in Debian's words: NATIVE is a root that was made before for this one, whose CPython helps
# to compile that one's, here and so in minutes. What is installed for it runs emulated (qemu-user 8 or newer in binfmt_misc,
# with the flag F).
set -eu
umask 022
unset CDPATH TAR_OPTIONS GZIP POSIXLY_CORRECT # of the caller
root=$1
own=$(dpkg --print-architecture)
arch=${2:-$own}
recipe=2 # raise it when what is built here changes: a root of an older recipe is built again
[ "$(cat "$root/.complete" 2> /dev/null)" = "$recipe" ] && exit 0
[ ! -e "$root/.complete" ] || rm -rf "$root"
[ "$arch" = "$own" ] || [ "$(cat "$3/.complete" 2> /dev/null)" = "$recipe" ] || { echo "first: old-root.sh $3" >&2; exit 2; }
mkdir -p "$root"
root=$(cd "$root" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work" "$root.cross"' EXIT

mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n1)}
make_root() { # DIR ARCHITECTURES PACKAGES
  [ ! -e "$1/.debian" ] || return 0
  mmdebstrap --quiet --variant=minbase --architectures="$2" --include="$3" --aptopt='Acquire::Languages "none"' bullseye "$1" "$mirror"
  touch "$1/.debian"
}
compiler=gcc,libc6-dev,make,binutils,xz-utils,patch,perl
libraries='zlib1g-dev libbz2-dev liblzma-dev libffi-dev libsqlite3-dev libexpat1-dev uuid-dev'
loaded=libffi7,libsqlite3-0,libexpat1,libuuid1,libbz2-1.0,liblzma5,zlib1g
if [ "$arch" = "$own" ]; then
  make_root "$root" "$arch" "$compiler,$(echo "$libraries" | tr ' ' ',')"
  compile=$root
  target='' options='' openssl=''
else
  case $arch in arm64) triplet=aarch64-linux-gnu ;; amd64) triplet=x86_64-linux-gnu ;; *) echo "unknown processor $arch" >&2; exit 2 ;; esac
  make_root "$root" "$arch" "binutils,$loaded"
  # Beside the compiler for the other processor, that one's libraries, and this one's for CPython, which drives the build.
  compile=$root.cross
  make_root "$compile" "$own,$arch" "$compiler,gcc-$(echo $triplet | tr _ -),$loaded,$(echo "$libraries" | sed "s/ \|\$/:$arch,/g" | sed 's/,$//')"
  cp -a "$3/opt/python" "$compile/opt/"
  cp "$3/etc/ld.so.conf.d/python.conf" "$compile/etc/ld.so.conf.d/"
  # Answers that configure would find by running what it has compiled.
  target=/opt/target options="--host=$triplet --build=$(uname -m)-linux-gnu --with-build-python=/opt/python/bin/python3.11
    ac_cv_file__dev_ptmx=yes ac_cv_file__dev_ptc=no ac_cv_buggy_getaddrinfo=no"
  openssl=--cross-compile-prefix=$triplet-
fi
case $arch in arm64) openssl="linux-aarch64 $openssl" ;; amd64) openssl="linux-x86_64 $openssl" ;; *) echo "unknown processor $arch" >&2; exit 2 ;; esac

# CPython from Debian 12's source package: upstream's archive, and of Debian's patches those that came later from upstream:
# they fix security problems. The ones before them change where things lie.
apt="-o APT::Sandbox::User=root -o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$work/lists -o Dir::Cache=$work"
mkdir -p "$work/lists/partial" "$work/archives/partial"
printf 'deb-src %s bookworm main\ndeb-src %s trixie main\n' "$mirror" "$mirror" > "$work/list"
# Debian's security mirror lies beside the other; a site's own may lack it.
security=${SECURITY_MIRROR-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep security | head -n1)}
[ -z "$security" ] || printf 'deb-src %s trixie-security main\n' "$security" >> "$work/list"
cd "$work"
# shellcheck disable=SC2086  # a list of options
apt-get $apt update -qq
# shellcheck disable=SC2086
apt-get $apt source -qq --download-only python3.11/bookworm

# OpenSSL: Debian 11's own is 1.1.1, which nobody supports any more. 3.5 is supported by upstream until April 2030.
# A mirror may list a version whose files it does not have yet: then the one before it is taken, and said.
# shellcheck disable=SC2086
versions=$(apt-cache $apt showsrc --only-source openssl | sed -n 's/^Version: \(3\.5\..*\)/\1/p' | sort -Vru)
for version in $versions ''; do
  # shellcheck disable=SC2086
  [ -z "$version" ] || ! apt-get $apt source -qq --download-only "openssl=$version" 2> refused || break
  cat refused >&2
done
[ -n "$version" ] || { echo "no OpenSSL 3.5 can be fetched from this mirror; it lists: ${versions:-none}" >&2; exit 1; }
echo "OpenSSL $version"
# /etc/ssl is where Debian, Ubuntu and SUSE keep the authorities; entry.py knows where others do.
rm -rf "$compile/opt/source" debian
mkdir -p "$compile/opt/source"
tar -xf "openssl_${version%%-*}.orig.tar.gz" -C "$compile/opt/source" --strip-components=1
tar -xf "openssl_$version.debian.tar.xz"
while read -r name _; do
  patch -s -f -p1 -d "$compile/opt/source" < "debian/patches/$name" || { echo "$name does not apply" >&2; exit 1; }
done < debian/patches/series
# shellcheck disable=SC2016,SC2086
chroot "$compile" sh -eu -c '
  cd /opt/source
  ./Configure "$@" --prefix=/opt/openssl --libdir=lib --openssldir=/etc/ssl shared no-apps no-docs no-module no-tests > configure.log
  make -s -j"$(nproc)" build_libs > make.log 2>&1 || { tail -n 40 make.log >&2; exit 1; }
  make -s install_dev > install.log 2>&1 || { tail -n 40 install.log >&2; exit 1; }
  echo /opt/openssl/lib > /etc/ld.so.conf.d/openssl.conf' sh $openssl
# Its licence and its version for the bill of materials.
cp "$compile/opt/source/LICENSE.txt" "$compile/opt/openssl/"
echo "$version" > "$compile/opt/openssl/debian-version"
rm -rf "$compile/opt/source" debian
mkdir -p "$compile/opt/source"
tar -xf python3.11_*.orig.tar.?z -C "$compile/opt/source" --strip-components=1
tar -xf python3.11_*.debian.tar.xz -C "$work"
sed -n '/^shutdown-deadlock/,$p' debian/patches/series | while read -r name _; do
  patch -s -f -p1 -d "$compile/opt/source" < "debian/patches/$name" || { echo "$name does not apply" >&2; exit 1; }
done
# A patch of pyexpat reads the interpreter's own structures; Debian builds the module into the interpreter, where it may.
sed -i "s|Extension('pyexpat', sources=\['pyexpat.c'\])|Extension('pyexpat', sources=['pyexpat.c'], define_macros=[('Py_BUILD_CORE_MODULE', '1')])|" \
  "$compile/opt/source/setup.py"
chroot "$compile" ldconfig
# shellcheck disable=SC2016,SC2086
chroot "$compile" env DESTDIR="$target" sh -eu -c '
  cd /opt/source
  ./configure --quiet --prefix=/opt/python --enable-shared --without-ensurepip --with-system-expat --with-openssl=/opt/openssl "$@" > configure.log
  make -s -j"$(nproc)" > make.log 2>&1 || { tail -n 40 make.log >&2; exit 1; }
  make -s install > install.log 2>&1 || { tail -n 40 install.log >&2; exit 1; }' sh $options
[ -z "$target" ] || cp -a "$compile$target/opt/python" "$compile/opt/openssl" "$root/opt/"
# Found by the loader, not by a search path in the libraries: that would travel in the binary.
printf '%s\n' /opt/python/lib /opt/openssl/lib > "$root/etc/ld.so.conf.d/python.conf"
# A plain core is emulated twice as fast as the emulator's default; no other processor looks at the variable.
chroot "$root" env QEMU_CPU=cortex-a72 sh -eu -c '
  ldconfig
  /opt/python/bin/python3.11 -c "import ssl, sqlite3, lzma, bz2, zlib, ctypes, decimal, pyexpat, uuid, hashlib; print(ssl.OPENSSL_VERSION)"
  strip --strip-debug /opt/python/lib/libpython3.11.so.1.0
  rm -rf /opt/source'
echo "$recipe" > "$root/.complete"
