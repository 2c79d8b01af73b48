#!/bin/sh
# bundle.sh: converts, signs and verifies one model; `make bundle` and the workflow convert.yml run it.
#   MODEL NAME VERSION       what to convert, and what it is called on devices
#   SAMPLE TARGET TRUST      as --sample, --target and --trust of `appliance convert`; empty: not given
#   KEY                      private key that signs it; empty: unsigned
#   FROM                     folder in which paths begin (here)
#   OUT                      folder for the bundle (dist/bundles)
#   BIN                      folder of the command `appliance`
set -eu
appliance=${BIN:+$BIN/}appliance
out=${OUT:-dist/bundles}
for wanted in MODEL NAME VERSION; do
  eval "value=\${$wanted-}"
  [ -n "$value" ] || { echo "bundle: $wanted is not set; see packaging/release/bundle.sh" >&2; exit 2; }
done
cd "${FROM:-.}"
mkdir -p "$out"
# `--` before MODEL, and = before values: a name that begins with - is no option.
set -- --name="$NAME" --version="$VERSION" -o "$out"
[ -z "${SAMPLE-}" ] || set -- "$@" --sample="$SAMPLE"
[ -z "${TARGET-}" ] || set -- "$@" --target="$TARGET"
[ -z "${TRUST-}" ] || set -- "$@" --trust="$TRUST"
[ -z "${KEY-}" ] || set -- "$@" --sign="$KEY"
"$appliance" convert "$@" -- "$MODEL"
"$appliance" verify --self-test "$out/$NAME-$VERSION.bundle"
(cd "$out" && sha256sum "$NAME-$VERSION.bundle")
