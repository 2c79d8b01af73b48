#!/bin/sh
# install.sh: puts the appliance of this kit on this host; needs neither Python nor a network. docs/offline-install.md tells more.
#
#   sh install.sh               check everything, then install beside the running version, switch, restart
#   sh install.sh --check       check everything, change nothing
#   sh install.sh --rollback    return to the version that ran before
#   sh install.sh --uninstall   remove the program; models, receipts and configuration stay, unless --purge
#
#   --key FILE     public key (PEM) that must have signed this kit; kept, so that later kits need it too
#   --prefix DIR   where the program goes (/opt/appliance)
#   --root DIR     install into the system below DIR, an image: its first boot makes the user and starts the service
#   --no-start     install and enable the service, but do not start or restart it
#   --inputs-changed   activate the kit's bundles also where inputs or labels differ from the active version's
#
# Exit codes: 0 done, 1 failed, 2 misuse, 3 refused: a check failed and nothing was changed.
#
# Interrupted anywhere, also by a power cut, it leaves the old version or the new one in place, never half a one: what is
# new is written beside what is there, flushed to the disk and renamed. Run it again and it does what is left to do.
set -eu
umask 022
# It runs as root: nothing that the caller's environment says (PATH, CDPATH, TAR_OPTIONS, TMPDIR, LD_..., functions) decides
# what runs or where anything is written. It begins again with an environment of its own.
case ${1-} in
  --clean) shift ;;
  *) exec /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C /bin/sh "$0" --clean "$@" ;;
esac

wrapper_mark='# Written by install.sh of the appliance.'
unit=appliance.service
pull_units='appliance-pull.timer appliance-pull.service'
score_units='appliance-score@.timer appliance-score@.service'
user=appliance

main() {
  action=install key='' prefix=/opt/appliance root='' start=yes purge='' failed='' inputs_changed=''
  kit=$(cd "$(dirname "$0")" && pwd -P)
  parse "$@"
  program=$root$prefix
  etc=$root/etc/appliance
  state=$root/var/lib/appliance
  units=$root/etc/systemd/system
  wrapper=$root/usr/local/bin/appliance
  sysusers=$root/etc/sysusers.d/appliance.conf
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 1' HUP INT TERM
  case $action in
    check) check_all || refuse; echo 'ready to install' ;;
    install) install_kit ;;
    rollback) must_be_root; lock; roll_back ;;
    uninstall) must_be_root; lock; uninstall ;;
  esac
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --check | --rollback | --uninstall) action=${1#--} ;;
      --purge) purge=yes ;;
      --no-start) start='' ;;
      --inputs-changed) inputs_changed=$1 ;;
      --key | --prefix | --root)
        [ $# -ge 2 ] || misuse "$1 needs a value"
        case $1 in --key) key=$2 ;; --prefix) prefix=$2 ;; --root) root=$2 ;; esac
        shift ;;
      -h | --help) sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
      *) misuse "unknown option $1" ;;
    esac
    shift
  done
  case $prefix in
    *[!A-Za-z0-9/._-]* | *..* | / | '') misuse "--prefix $prefix: only letters, digits and / . _ - may stand in it" ;;
    /*) prefix=${prefix%/} ;;
    *) misuse '--prefix needs an absolute path' ;;
  esac
  [ -z "$root" ] || [ -d "$root" ] || misuse "--root $root is no folder"
  [ -z "$root" ] || root=$(cd "$root" && pwd -P)
  [ "$root" != / ] || root=''
  [ -z "$purge" ] || [ "$action" = uninstall ] || misuse '--purge goes with --uninstall'
  [ -z "$key" ] || [ -r "$key" ] || misuse "--key $key cannot be read"
}

install_kit() {
  check_all || refuse
  must_be_root
  mkdir -p "$program/versions"
  lock
  make_user
  place_version
  place_configuration
  before=$(ready_word)
  old=$(readlink "$program/current" || true)
  new=versions/${folder##*/}
  place_wrapper
  switch_to "$new"
  if [ -n "$start" ] && [ -z "$root" ]; then
    start_service "$before" || return_to "$old"
  fi
  place_bundles
  prune
  say "$version is installed in $prefix"
  [ -n "$root" ] || [ -d "$kit/bundles" ] || say 'next: appliance install BUNDLE, then appliance activate NAME VERSION'
}

# Checks: each says one line; none changes anything.

check_all() {
  [ -r "$kit/kit.conf" ] && [ -r "$kit/program.tar" ] || {
    report fail kit "no kit is beside this script ($kit)" 'run the install.sh of an unpacked kit'
    return 1
  }
  version=$(kit_value version)
  case $version in
    '' | .* | *[!A-Za-z0-9.+_-]*) report fail kit 'kit.conf names no version' 'get the kit again'; return 1 ;;
  esac
  check_user
  check_machine
  check_glibc
  check_systemd
  check_other_installation
  check_mount "$program"
  check_disk
  check_port
  check_files && check_signature
  [ -z "$failed" ]
}

check_user() {
  if [ "$(id -u)" = 0 ] || [ -n "$root" ]; then report ok user "$(id -un)"
  elif [ "$action" = check ]; then report warn user "$(id -un)" 'install as root'
  else report fail user "$(id -un)" 'run it as root'; fi
}

check_machine() {
  wanted=$(kit_value arch)
  found=$(uname -m)
  if [ "$found" = "$wanted" ]; then report ok processor "$found"
  else report fail processor "$found; this kit is for $wanted" "get the kit for $found"; fi
}

check_glibc() {
  least=$(kit_value glibc)
  found=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p')
  if [ -z "$found" ]; then report fail glibc 'the C library is not glibc' 'use a distribution with glibc (not Alpine)'
  elif at_least "$found" "$least"; then report ok glibc "$found"
  else report fail glibc "$found; this kit needs $least" 'use a newer system, or a kit built for an older one'; fi
}

check_systemd() {
  if [ -n "$root" ]; then report ok systemd 'not asked: --root'
  elif [ -d /run/systemd/system ]; then report ok systemd "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
  else report fail systemd 'it does not run here' 'use the container image instead, or --root for an image'; fi
}

check_other_installation() {
  if [ -e "$root/usr/lib/appliance/program" ]; then
    report fail package 'the Debian package edge-inference-appliance is installed' 'keep to it, or remove it first'
  fi
  if [ -e "$wrapper" ] && ! grep -qsF "$wrapper_mark" "$wrapper"; then
    report warn command "$wrapper belongs to something else and stays" "call $prefix/current/program/appliance"
  fi
}

check_mount() {
  place=$(nearest "$1")
  mounted=$(findmnt -n -o OPTIONS -T "$place" 2>/dev/null || true)
  case ,$mounted, in
    *,noexec,*) report fail 'program mount' "$place is mounted noexec" 'name another folder by --prefix' ;;
    *,ro,*) report fail 'program mount' "$place is mounted read-only" 'mount it writable, or name another by --prefix' ;;
    *) report ok 'program mount' "$place" ;;
  esac
}

check_disk() {
  # The new version beside the old ones, and room for a bundle.
  need=$(($(kit_value kibibytes) + 65536))
  free=$(df -Pk "$(nearest "$program")" | awk 'NR == 2 { print $4 }')
  if [ "$free" -ge "$need" ]; then report ok disk "$((free / 1024)) MiB free"
  else report fail disk "$((free / 1024)) MiB free in $prefix; $((need / 1024)) are needed" 'free some space, or name another folder by --prefix'; fi
}

check_port() {
  [ -z "$root" ] || return 0
  port=$(awk '/^[ \t]*\[/ { http = /^[ \t]*\[http\]/ } http && /^[ \t]*port[ \t]*=/ { sub(/^[^=]*=[ \t]*/, ""); sub(/[^0-9].*/, ""); print }' "$etc/appliance.toml" 2>/dev/null || true)
  port=${port:-8080}
  listens=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port=":$(printf '%04X' "$port")" '$4 == "0A" && substr($2, length($2) - 4) == port { print "yes"; exit }')
  if [ -z "$listens" ]; then report ok port "$port is free"
  elif systemctl -q is-active $unit; then report ok port "$port is the appliance's own"
  else report fail port "$port is taken by another program" "end it, or write another [http] port into $etc/appliance.toml first"; fi
}

check_files() {
  if ! (cd "$kit" && sha256sum -c SHA256SUMS) > "$scratch/sums" 2>&1; then
    sums=$(grep -v ': OK$' "$scratch/sums" | head -n 3 | tr '\n' ' ')
    report fail checksums "$sums" 'the kit is damaged; get it again'
    return 1
  fi
  (cd "$kit" && find . ! -type d | sed 's|^\./||' | grep -vx -e SHA256SUMS -e model.sig | sort) > "$scratch/present"
  sed 's/^[0-9a-f]*  //' "$kit/SHA256SUMS" | sort > "$scratch/listed"
  more=$(grep -vxF -f "$scratch/listed" "$scratch/present" | head -n 3 | tr '\n' ' ')
  odd=$(cd "$kit" && find . ! -type d ! -type f | head -n 3 | tr '\n' ' ')
  if [ -n "$more$odd" ]; then
    report fail checksums "not part of the kit: $more$odd" 'unpack the kit into an empty folder'
    return 1
  fi
  report ok checksums "$(grep -c . "$scratch/listed") files"
}

check_signature() {
  trusted=${key:-$etc/kit.pub}
  if [ ! -e "$trusted" ]; then
    report warn signature 'not checked: no key was given' '--key FILE with the public key of whoever made the kit'
  elif [ ! -e "$kit/model.sig" ]; then
    report fail signature 'the kit is not signed' "get one that is signed by the key $trusted"
  elif command -v openssl > /dev/null; then
    if signed_by "$trusted"; then report ok signature "by $trusted"
    else report fail signature "not by $trusted, or altered afterwards" 'do not use this kit; get it again'; fi
  elif [ -x "$program/current/program/appliance" ]; then
    if "$program/current/program/appliance" verify "$kit" --key "$trusted" > /dev/null; then report ok signature "by $trusted"
    else report fail signature "not by $trusted, or altered afterwards" 'do not use this kit; get it again'; fi
  else
    # The program in the kit must not check itself.
    report fail signature 'nothing here can check it' 'install openssl, or check it on another host: appliance verify KIT --key FILE'
  fi
}

# OpenSSF Model Signing v1.0 with openssl and awk alone, as strict as the program's own check (appliance/bundle/signature.py;
# tests/signatures compares the two): a key of the file $1 signed exactly the files that are here.
signed_by() {
  [ "$(($(wc -c < "$kit/model.sig")))" -le 4194304 ] || return 1
  json_lines 200 < "$kit/model.sig" > "$scratch/envelope" && envelope_is_right < "$scratch/envelope" || return 1
  base64_value .dsseEnvelope.payload "$scratch/payload" || return 1
  base64_value '.dsseEnvelope.signatures[0].sig' "$scratch/signature" || return 1
  # DSSE's pre-authentication encoding; 28 is the length of the type.
  { printf 'DSSEv1 28 application/vnd.in-toto+json %d ' "$(($(wc -c < "$scratch/payload")))"; cat "$scratch/payload"; } > "$scratch/message"
  by_a_key_in "$1" || return 1
  # Nothing in the payload is read before this line.
  json_lines 500000 < "$scratch/payload" > "$scratch/statement" && signed_files < "$scratch/statement" > "$scratch/signed" || return 1
  # shellcheck disable=SC2059  # octal escapes are what is to be printed
  root_digest=$(cut -c 1-64 "$scratch/signed" | octal_escapes | while read -r one; do printf "$one"; done | sha256sum | cut -c 1-64)
  grep -qxF ".subject[0].digest.sha256	\"$root_digest\"" "$scratch/statement" || return 1
  # check_files has compared SHA256SUMS with the files.
  { cat "$kit/SHA256SUMS"; echo "$(sha256sum < "$kit/SHA256SUMS" | cut -c 1-64)  SHA256SUMS"; } | sort > "$scratch/here"
  sort "$scratch/signed" | cmp -s - "$scratch/here"
}

# Writes a JSON text as lines: the path of a value, a tab, the value as it stands there. Refuses a key that is there twice,
# more than $1 values, bytes beyond printable ASCII and escapes in strings: no signer of kits writes those.
json_lines() {
  cat > "$scratch/json"
  [ "$(tr -d ' -~\t\r\n' < "$scratch/json" | wc -c)" -eq 0 ] || return 1
  tr '\t\r\n' '   ' < "$scratch/json" | awk -v most="$1" '
    function refuse() { refused = 1; exit 1 }
    function take(count) { text = substr(text, count + 1); sub(/^ +/, "", text) }
    function next_is(mark) { if (substr(text, 1, 1) != mark) return 0; take(1); return 1 }
    function string(   found) {
      if (!match(text, /^"[^"\\]*"/)) refuse()
      found = substr(text, 1, RLENGTH)
      take(RLENGTH)
      return found
    }
    function put(path, found) { if (++count > most) refuse(); print path "\t" found }
    function value(path,   key, place) {
      if (path in seen) refuse()
      seen[path] = 1
      if (next_is("{")) {
        put(path, "{")
        if (next_is("}")) return
        do {
          key = string()
          if (key !~ /^"[A-Za-z0-9_-]+"$/ || !next_is(":")) refuse()
          value(path "." substr(key, 2, length(key) - 2))
        } while (next_is(","))
        if (!next_is("}")) refuse()
      } else if (next_is("[")) {
        put(path, "[")
        if (next_is("]")) return
        place = 0
        do value(path "[" place++ "]"); while (next_is(","))
        if (!next_is("]")) refuse()
      } else if (substr(text, 1, 1) == "\"") put(path, string())
      else if (match(text, /^(true|false|null|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?)/)) {
        key = substr(text, 1, RLENGTH)
        take(RLENGTH)
        put(path, key)
      } else refuse()
    }
    { text = text $0 }
    END { if (refused) exit 1; take(0); value(""); if (refused || text != "") exit 1 }'
}

# Both read what json_lines wrote. A key that they do not know is refused where the specification has no place for it.

envelope_is_right() {
  awk -F '\t' '
    { known = 0 }
    $1 ~ /^(|\.verificationMaterial|\.verificationMaterial\.publicKey|\.dsseEnvelope)$/ { known = $2 == "{" }
    $1 ~ /^\.verificationMaterial\.publicKey\./ { known = 1 }
    $1 == ".verificationMaterial.tlogEntries" { known = $2 == "[" || $2 == "null" }
    $1 == ".verificationMaterial.timestampVerificationData" { known = $2 == "{" || $2 == "null" }
    $1 ~ /^\.verificationMaterial\.(tlogEntries\[|timestampVerificationData\.)/ { known = 1 }
    $1 == ".mediaType" { known = $2 == "\"application/vnd.dev.sigstore.bundle.v0.3+json\"" }
    $1 == ".dsseEnvelope.payloadType" { known = $2 == "\"application/vnd.in-toto+json\"" }
    $1 == ".dsseEnvelope.signatures" { known = $2 == "[" }
    $1 == ".dsseEnvelope.signatures[0]" { known = $2 == "{" }
    $1 == ".dsseEnvelope.signatures[0].keyid" { known = $2 ~ /^("|null$)/ }
    $1 ~ /^\.dsseEnvelope\.(payload|signatures\[0\]\.sig)$/ { known = $2 ~ /^"[A-Za-z0-9+\/]+=*"$/ }
    !known { exit wrong = 1 }
    $1 ~ /^\.(verificationMaterial\.publicKey|mediaType|dsseEnvelope\.(payloadType|payload|signatures\[0\]\.sig))$/ { needed++ }
    END { exit wrong || needed != 5 }'
}

# Writes the files and digests that the statement signs, in the form of SHA256SUMS.
signed_files() {
  awk -F '\t' '
    function text() { return substr($2, 2, length($2) - 2) }
    function finish() {
      if (name == "" && digest == "" && algorithm == "") return
      if (algorithm != "sha256" || digest !~ /^[0-9a-f]+$/ || length(digest) != 64 || name <= last) wrong = 1
      if ("/" name "/" ~ /\/(\.?\.?)\//) wrong = 1
      print digest "  " name
      last = name; files++
      name = digest = algorithm = ""
    }
    { known = 0 }
    $1 ~ /^(|\.predicate|\.predicate\.serialization|\.subject\[0\]|\.subject\[0\]\.digest)$/ { known = $2 == "{" }
    $1 ~ /^\.(subject|predicate\.resources|predicate\.serialization\.ignore_paths)$/ { known = $2 == "[" }
    $1 == "._type" { known = $2 == "\"https://in-toto.io/Statement/v1\"" }
    $1 == ".predicateType" { known = $2 == "\"https://model_signing/signature/v1.0\"" }
    $1 == ".subject[0].name" { known = $2 ~ /^"./ && $2 != "\"\"" }
    $1 ~ /^\.subject\[0\]\.digest\.[^.[]+$/ { known = $2 ~ /^"/ }
    $1 ~ /^\.subject\[0\]\./ && $1 !~ /^\.subject\[0\]\.(name|digest)([.[]|$)/ { known = 1 }
    $1 == ".predicate.serialization.method" { known = $2 == "\"files\"" }
    $1 == ".predicate.serialization.hash_type" { known = $2 == "\"sha256\"" }
    $1 == ".predicate.serialization.allow_symlinks" { known = $2 ~ /^(true|false)$/ }
    $1 == ".predicate.serialization.shard_size" { known = $2 == "null" }
    $1 ~ /^\.predicate\.serialization\.ignore_paths\[[0-9]+\]$/ { known = $2 ~ /^"/ }
    $1 ~ /^\.predicate\.resources\[[0-9]+\]$/ { finish(); known = $2 == "{"; resources++ }
    $1 ~ /^\.predicate\.resources\[[0-9]+\]\.(name|digest|algorithm)$/ {
      known = $2 ~ /^"/
      if ($1 ~ /name$/) name = text()
      else if ($1 ~ /digest$/) digest = text()
      else algorithm = text()
    }
    $1 ~ /^\.predicate\.resources\[[0-9]+\]\./ && $1 !~ /\]\.(name|digest|algorithm)([.[]|$)/ { known = 1 }
    !known { exit wrong = 1 }
    $1 ~ /^\.(_type|predicateType|subject\[0\]\.name|subject\[0\]\.digest\.sha256)$/ { needed++ }
    $1 ~ /^\.predicate\.serialization\.(method|hash_type|allow_symlinks)$/ { needed++ }
    END { finish(); exit wrong || needed != 7 || !files || files != resources }'
}

# Writes the bytes of a base64 text to the file $2; there is one right way to write them (RFC 4648, section 4).
base64_value() {
  awk -F '\t' -v path="$1" '$1 == path { print substr($2, 2, length($2) - 2) }' "$scratch/envelope" > "$scratch/base64"
  openssl base64 -d -A < "$scratch/base64" > "$2" 2> /dev/null && [ -s "$2" ] || return 1
  { openssl base64 -A < "$2"; echo; } | cmp -s - "$scratch/base64"
}

# Hexadecimal digests, one a line, as what printf makes bytes of.
octal_escapes() {
  awk '{ line = ""
    for (place = 1; place <= length($0); place += 2) {
      byte = (index("0123456789abcdef", substr($0, place, 1)) - 1) * 16 + index("0123456789abcdef", substr($0, place + 1, 1)) - 1
      line = line sprintf("\\%03o", byte)
    }
    print line }'
}

# The file may hold several keys, of which one is enough, and nothing beside them: as `appliance verify --key` has it. All
# of them are on the curve P-256, whose public keys begin with the same bytes.
by_a_key_in() {
  rm -f "$scratch"/key.*
  tr -d '\r' < "$1" | awk -v to="$scratch/key." '
    /^-----BEGIN PUBLIC KEY-----$/ { count++; within = 1 }
    within { print > (to count) }
    !within && NF { beside = 1 }
    /^-----END PUBLIC KEY-----$/ { within = 0 }
    END { exit beside || within || !count }' || return 1
  for one in "$scratch"/key.*; do
    sed -n 2p "$one" | grep -q '^MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE' || return 1
    openssl pkey -pubin -in "$one" -noout > /dev/null 2>&1 || return 1
  done
  for one in "$scratch"/key.*; do
    ! openssl dgst -sha256 -verify "$one" -signature "$scratch/signature" "$scratch/message" > /dev/null 2>&1 || return 0
  done
  return 1
}

# Steps: each leaves the host whole, and finds what an earlier, interrupted run has done.

make_user() {
  if [ -n "$root" ]; then
    mkdir -p "$root/etc/sysusers.d"
    echo "u $user - \"Inference Appliance\" /var/lib/appliance" | place_file "$sysusers"
    return 0
  fi
  id $user > /dev/null 2>&1 && return 0
  group=--user-group
  ! getent group $user > /dev/null || group="--gid $user"
  # shellcheck disable=SC2086  # an option and its value
  useradd --system $group --no-create-home --home-dir /var/lib/appliance --shell /usr/sbin/nologin $user
}

# Puts the kit's version into $folder, beside the others. A version of that name that is damaged, or another build, stays
# until the new one runs; the new one then has a number behind its name.
place_version() {
  rm -rf "$program"/versions/.partial.*
  name=$version
  count=1
  while folder=$program/versions/$name && [ -e "$folder" ]; do
    ! is_whole "$folder" || return 0
    count=$((count + 1))
    name=$version.$count
  done
  partial=$program/versions/.partial.$$
  mkdir "$partial"
  tar -xof "$kit/program.tar" -C "$partial"
  grep -v -e '  program.tar$' -e '  bundles/' "$kit/SHA256SUMS" > "$scratch/small"
  sed 's/^[0-9a-f]*  //' "$scratch/small" | while read -r one; do cp "$kit/$one" "$partial/$one"; done
  cp "$kit/SHA256SUMS" "$partial/SHA256SUMS"
  chmod -R u=rwX,go=rX "$partial"
  # Read back from the disk: what the kit held, and what is in its program.tar.
  (cd "$partial" && sha256sum -c "$scratch/small" && sha256sum -c FILES.sha256) > "$scratch/written" 2>&1 ||
    fail 'write the program' "$(grep -v ': OK$' "$scratch/written" | head -n 3 | tr '\n' ' ')" 'check the disk, and run install.sh again'
  ! command -v restorecon > /dev/null || restorecon -R "$partial" # SELinux
  flush "$partial"
  mv "$partial" "$folder"
  flush "$program/versions"
}

is_whole() {
  cmp -s "$kit/SHA256SUMS" "$1/SHA256SUMS" && (cd "$1" && sha256sum -c FILES.sha256) > /dev/null 2>&1
}

place_configuration() {
  mkdir -p "$etc" "$state"
  if [ -z "$root" ]; then
    chown $user:$user "$state"
    chmod 750 "$state"
  fi
  [ -e "$etc/appliance.toml" ] || place_file "$etc/appliance.toml" < "$kit/appliance.toml"
  if [ -n "$key" ] && ! cmp -s "$key" "$etc/kit.pub"; then place_file "$etc/kit.pub" < "$key"; fi
}

place_wrapper() {
  [ ! -e "$wrapper" ] || grep -qsF "$wrapper_mark" "$wrapper" || return 0
  mkdir -p "${wrapper%/*}"
  place_file "$wrapper" 755 <<WRAPPER
#!/bin/sh
$wrapper_mark
# The command means the same configuration and state as the service.
[ -n "\${APPLIANCE_CONFIG-}" ] || [ ! -r /etc/appliance/appliance.toml ] || export APPLIANCE_CONFIG=/etc/appliance/appliance.toml
exec $prefix/current/program/appliance "\$@"
WRAPPER
}

# Makes $1 (versions/NAME) the current version: one rename. Its unit follows; a unit and the program of another version
# of this kit go together, so a power cut between the two does no harm.
switch_to() {
  now=$(readlink "$program/current" || true)
  changed=''
  if [ "$now" != "$1" ]; then
    changed=yes
    [ -z "$now" ] || place_link "$now" "$program/previous"
    place_link "$1" "$program/current"
  fi
  mkdir -p "$units"
  sed "s|@PREFIX@|$prefix|g" "$program/current/$unit" > "$scratch/unit"
  if ! cmp -s "$scratch/unit" "$units/$unit"; then
    changed=yes
    place_file "$units/$unit" < "$scratch/unit"
  fi
  reload=$changed
  # Beside it, disabled, those that pull bundles and score files.
  for one in $pull_units $score_units; do
    [ -e "$program/current/$one" ] || continue
    sed "s|@PREFIX@|$prefix|g" "$program/current/$one" > "$scratch/unit"
    cmp -s "$scratch/unit" "$units/$one" || { reload=yes; place_file "$units/$one" < "$scratch/unit"; }
  done
  if [ -z "$root" ]; then
    [ -z "$reload" ] || systemctl daemon-reload
    systemctl -q is-enabled $unit > /dev/null 2>&1 || systemctl -q enable $unit
  else
    mkdir -p "$units/multi-user.target.wants"
    place_link "../$unit" "$units/multi-user.target.wants/$unit"
  fi
}

# Starts the service where it must be; fails unless it says that it is up, and ready where it was ready before ($1).
start_service() {
  if [ -n "$changed" ] || ! systemctl -q is-active $unit; then
    systemctl reset-failed $unit 2> /dev/null || true
    systemctl restart $unit || return 1
  fi
  [ "$1" = ready ] || return 0
  tries=60
  while [ "$(ready_word)" != ready ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    sleep 1
  done
}

# After a version that does not serve: back to $1 (versions/NAME, empty if there was none).
return_to() {
  journalctl -q --no-pager -u $unit -n 15 >&2 || true
  if [ -n "$1" ] && [ "$1" != "$(readlink "$program/current")" ]; then
    switch_to "$1"
    systemctl restart $unit || true
    fail "start $version" 'it does not serve' "the version before runs again ($1); see: journalctl -u $unit"
  fi
  fail "start $version" 'it does not serve' "see: journalctl -u $unit; appliance doctor"
}

ready_word() {
  [ -z "$root" ] && [ -x "$wrapper" ] && "$wrapper" status --ready > /dev/null 2>&1 && echo ready || echo no
}

# Installs and activates the kit's bundles, each once on this host: what an operator rolls back later stays so.
place_bundles() {
  [ -z "$root" ] || return 0
  touch "$program/bundles-done"
  for bundle in "$kit"/bundles/*.bundle; do
    [ -e "$bundle" ] || continue
    sum=$(sha256sum < "$bundle" | cut -d ' ' -f 1)
    ! grep -qx "$sum" "$program/bundles-done" || continue
    "$wrapper" install "$bundle" --json --why "kit $version" > "$scratch/bundle"
    # shellcheck disable=SC2086  # an option or nothing
    "$wrapper" activate "$(json_value model)" "$(json_value version)" $inputs_changed --why "kit $version"
    { cat "$program/bundles-done"; echo "$sum"; } > "$scratch/done"
    place_file "$program/bundles-done" < "$scratch/done"
  done
}

# Deletes every version but the current one and the one before.
prune() {
  rm -rf "$program"/versions/.removed.*
  for one in "$program"/versions/*; do
    case versions/${one##*/} in
      "$(readlink "$program/current")" | "$(readlink "$program/previous" || true)") ;;
      *) mv "$one" "$program/versions/.removed.${one##*/}" ;;
    esac
  done
  rm -rf "$program"/versions/.removed.*
}

roll_back() {
  old=$(readlink "$program/previous" || true)
  [ -n "$old" ] && [ -e "$program/$old" ] || fail 'roll back' 'no earlier version is kept' 'run the install.sh of the kit you want'
  version=$(sed -n 's/^version=//p' "$program/$old/kit.conf")
  now=$(readlink "$program/current")
  switch_to "$old"
  if [ -n "$start" ] && [ -z "$root" ]; then start_service no || return_to "$now"; fi
  say "$version runs again"
}

uninstall() {
  if [ -z "$root" ] && [ -e "$units/appliance-pull.timer" ]; then systemctl -q disable --now $pull_units || true; fi
  if [ -z "$root" ] && [ -e "$units/appliance-score@.timer" ]; then
    systemctl -q disable 'appliance-score@.timer' || true
    systemctl stop 'appliance-score@*.timer' 'appliance-score@*.service' || true
  fi
  if [ -z "$root" ] && [ -e "$units/$unit" ]; then systemctl -q disable --now $unit || true; fi
  for one in $pull_units $score_units; do rm -f "$units/$one"; done
  rm -f "$units/$unit" "$units/multi-user.target.wants/$unit" "$sysusers"
  if [ -z "$root" ]; then
    systemctl daemon-reload
    systemctl reset-failed $unit 2> /dev/null || true
  fi
  ! grep -qsF "$wrapper_mark" "$wrapper" || rm -f "$wrapper"
  rm -rf "$program/current" "$program/previous" "$program/versions" "$program/bundles-done" "$program/.lock"
  rmdir "$program" 2> /dev/null || true
  if [ -n "$purge" ]; then
    rm -rf "$etc" "$state"
    [ -n "$root" ] || ! id $user > /dev/null 2>&1 || userdel $user
    say 'the appliance, its models and its configuration are gone'
  else
    say "the appliance is gone; models and receipts stay in /var/lib/appliance, the configuration in /etc/appliance"
  fi
}

# Helpers.

# Makes $1 hold standard input, with mode $2; at any moment it holds all of the old or all of the new.
place_file() {
  rm -f "$1".new.*
  cat > "$1.new.$$"
  chmod "${2:-644}" "$1.new.$$"
  flush "$1.new.$$"
  mv "$1.new.$$" "$1"
  flush "$(dirname "$1")"
}

# Makes the link $2 lead to $1, by one rename. (-T is not POSIX; without it mv would follow the old link.)
place_link() {
  rm -f "$2".new.*
  ln -s "$1" "$2.new.$$"
  mv -T "$2.new.$$" "$2"
  flush "$(dirname "$2")"
}

# Has the disk keep what was written; -f (one file system) is not everywhere.
flush() { sync -f "$1" 2> /dev/null || sync; }

lock() {
  if [ ! -d "$program" ] || ! command -v flock > /dev/null; then return 0; fi
  exec 9> "$program/.lock"
  flock -n 9 || fail "$action" 'another install.sh runs on this host' 'wait for it to end'
}

must_be_root() { [ -n "$root" ] || [ "$(id -u)" = 0 ] || misuse 'run it as root'; }
kit_value() { sed -n "s/^$1=//p" "$kit/kit.conf"; }
json_value() { sed -n "s/^ *\"$1\": \"\([^\"]*\)\".*/\1/p" "$scratch/bundle"; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -t . -k 1,1n -k 2,2n | head -n 1)" = "$2" ]; }
nearest() { at=$1; while [ ! -d "$at" ]; do at=$(dirname "$at"); done; echo "$at"; }
# One line of text whose controls a terminal does not obey: names of files and of bundles are others' texts.
plain() { printf '%s' "$1" | tr '\n\t' '  ' | LC_ALL=C cat -v | sed 's/\^\[/\\x1b/g'; }
say() { printf 'appliance: %s\n' "$(plain "$*")"; }

report() {
  printf '%-5s%-14s%s\n' "$1" "$2" "$(plain "$3")"
  [ -z "${4-}" ] || printf '%19s-> %s\n' '' "$(plain "$4")"
  [ "$1" != fail ] || failed=yes
}

fail() { printf 'error: %s\nfound: %s\nnext:  %s\n' "$(plain "$1")" "$(plain "$2")" "$(plain "$3")" >&2; exit 1; }
refuse() { printf 'error: install\nfound: a check failed (fail, above); nothing was changed\nnext:  do what its line says\n' >&2; exit 3; }
misuse() { printf 'error: install.sh\nfound: %s\nnext:  sh install.sh --help\n' "$(plain "$1")" >&2; exit 2; }

main "$@"
