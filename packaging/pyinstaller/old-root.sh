#!/bin/sh
# old-root.sh ROOT: makes a Debian 11 root (glibc 2.31) with CPython 3.11 in /opt/python, to build the binary in.
# The binary takes the C library of the host it runs on, so it is built on the oldest that is to be supported.
# Needs root, mmdebstrap, and an apt whose mirror has bullseye and bookworm. Run again, it finds what is done.
set -eu
root=$1
[ -e "$root/.complete" ] && exit 0
mkdir -p "$root"
root=$(cd "$root" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n1)}
libraries=libssl-dev,zlib1g-dev,libbz2-dev,liblzma-dev,libffi-dev,libsqlite3-dev,libexpat1-dev,patch,uuid-dev
[ -e "$root/usr/include/expat.h" ] || mmdebstrap --quiet --variant=minbase --include="gcc,libc6-dev,make,binutils,xz-utils,$libraries" \
  --aptopt='Acquire::Languages "none"' bullseye "$root" "$mirror"

# CPython from Debian 12's source package: upstream's archive, and of Debian's patches those that came later from upstream:
# they mend security. The ones before them change where things lie.
apt="-o APT::Sandbox::User=root -o Dir::Etc::SourceList=$work/list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$work/lists -o Dir::Cache=$work"
mkdir -p "$work/lists/partial" "$work/archives/partial"
printf 'deb-src %s bookworm main\n' "$mirror" > "$work/list"
cd "$work"
# shellcheck disable=SC2086  # a list of options
apt-get $apt update -qq
# shellcheck disable=SC2086
apt-get $apt source -qq --download-only python3.11
rm -rf "$root/opt/source"
mkdir -p "$root/opt/source"
tar -xf python3.11_*.orig.tar.?z -C "$root/opt/source" --strip-components=1
tar -xf python3.11_*.debian.tar.xz -C "$work"
sed -n '/^shutdown-deadlock/,$p' debian/patches/series | while read -r name _; do
  patch -s -f -p1 -d "$root/opt/source" < "debian/patches/$name" || { echo "$name does not apply" >&2; exit 1; }
done
# A patch of pyexpat reads the interpreter's own structures; Debian builds the module into the interpreter, where it may.
sed -i "s|Extension('pyexpat', sources=\['pyexpat.c'\])|Extension('pyexpat', sources=['pyexpat.c'], define_macros=[('Py_BUILD_CORE_MODULE', '1')])|" \
  "$root/opt/source/setup.py"
chroot "$root" sh -eu -c '
  cd /opt/source
  ./configure --quiet --prefix=/opt/python --enable-shared --without-ensurepip --with-system-expat > configure.log
  make -s -j"$(nproc)" > make.log 2>&1 || { tail -n 40 make.log >&2; exit 1; }
  make -s install > install.log 2>&1
  # Found by the loader, not by a search path in the libraries: that would travel in the binary.
  echo /opt/python/lib > /etc/ld.so.conf.d/python.conf
  ldconfig
  /opt/python/bin/python3.11 -c "import ssl, sqlite3, lzma, bz2, zlib, ctypes, decimal, pyexpat, uuid, hashlib; print(ssl.OPENSSL_VERSION)"
  strip --strip-debug /opt/python/lib/libpython3.11.so.1.0
  rm -rf /opt/source'
touch "$root/.complete"
