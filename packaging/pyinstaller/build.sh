#!/bin/sh
# build.sh OUT: builds the binary, a folder OUT/appliance that runs where no Python is, from this working tree; beside it
# its bill of materials (sbom.cdx.json) and the licences of its parts (LICENSES.txt).
#   PYTHON=python3   the interpreter to put in: 3.11 or newer, with its shared library (libpythonX.Y.so)
#   ROOT=DIR         build inside this root of an older system (old-root.sh), for an older C library; needs root. It may be
#                    of another processor, where this machine emulates that one
# Dependencies are the device's lock; nothing of the build machine (scikit-learn, onnx) is installed beside them.
set -eu
umask 022
unset CDPATH TAR_OPTIONS GZIP POSIXLY_CORRECT # of the caller
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
root=${ROOT:+$(cd "$ROOT" && pwd)}
python=${PYTHON:-python3}
[ -z "$root" ] || python=/opt/python/bin/python3.11
[ -z "$root" ] || [ -e "$root/opt/openssl" ] || { echo "$root has no OpenSSL 3; first: make old-root" >&2; exit 2; }
build=${root:-$source/.cache}/binary-build # as this machine sees it
inside=${build#"$root"}                    # as the interpreter sees it
in_root() { if [ -n "$root" ]; then chroot "$root" env -i PATH=/usr/bin:/bin HOME=/tmp QEMU_CPU=cortex-a72 "$@"; else "$@"; fi; }

mkdir -p "${build%/*}"
exec 9> "$build.lock" # two builds in one place would spoil each other
flock 9
rm -rf "$build"
mkdir "$build" "$build/wheels"
# What the interpreter says of itself decides which wheels are fetched; the root itself needs no network.
version=$(in_root "$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
glibc=$(in_root "$python" -c 'import os; print(os.confstr("CS_GNU_LIBC_VERSION").split()[1].replace(".", "_"))')
machine=$(in_root "$python" -c 'import os; print(os.uname().machine)')
platforms="--platform linux_$machine --platform manylinux2014_$machine"
minor=${glibc#2_}
while [ "$minor" -ge 17 ]; do
  platforms="$platforms --platform manylinux_2_${minor}_$machine"
  minor=$((minor - 1))
done
fetch() { # shellcheck disable=SC2086  # a list of options
  "${FETCH_PYTHON:-python3}" -m pip download --quiet --only-binary=:all: --python-version "$version" $platforms --dest "$build/wheels" "$@"
}
fetch --no-deps --require-hashes -r "$source/requirements/shipped.txt"
fetch --no-deps --require-hashes -r "$here/requirements.txt"

# The working tree without its caches; metadata and version come from pyproject.toml.
mkdir "$build/source"
(cd "$source" && tar -cf - --exclude=__pycache__ pyproject.toml README.md LICENSE appliance convert) | tar -xf - -C "$build/source"
cp "$here/appliance.spec" "$here/entry.py" "$source/packaging/sbom/binary.py" "$source/packaging/sbom/parts.py" "$build/"

in_root sh -eu -s "$inside" "$python" <<'BUILD'
cd "$1"
"$2" -m venv --without-pip env
env="$1/env/bin/python"
PYTHONPATH="$PWD/$(ls wheels/pip-*.whl)" # a wheel is a zip: pip runs from it
export PYTHONPATH
"$env" -m pip install --quiet --no-index --no-deps --find-links wheels $(ls wheels/*.whl | grep -v '/pip-')
"$env" -m pip install --quiet --no-index --no-deps --no-build-isolation ./source
unset PYTHONPATH
env -u SOURCE_DATE_EPOCH PYTHONHASHSEED=1 "$env" -m PyInstaller --noconfirm --log-level WARN --distpath out --workpath work appliance.spec
"$env" binary.py work/appliance out/appliance out
BUILD
in_root "$inside/out/appliance/appliance" --version
rm -rf "$out/appliance"
cp -a "$build/out/appliance" "$build/out/sbom.cdx.json" "$build/out/LICENSES.txt" "$out/"
