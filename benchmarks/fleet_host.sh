#!/bin/sh
# The command `appliance` of a simulated host: keeps in its own folder which versions are installed and which one is
# active, and answers as the real command does. It runs no model: on a real host that work is not the controller's.
set -eu
state=$(dirname "$0")/state
command=$1
shift
file='' words=''
while [ $# -gt 0 ]; do
  case $1 in
    --json) ;;
    --*) shift ;;
    *.bundle) file=$1 ;;
    *) words="$words $1" ;;
  esac
  shift
done
# shellcheck disable=SC2086  # NAME and VERSION hold no blanks
set -- $words
version=${2-}
[ -z "$file" ] || version=$(basename "$file" .bundle | cut -d - -f 2)
active=$(cat "$state/active" 2> /dev/null || true)
previous=$(cat "$state/previous" 2> /dev/null || true)
changed=false
keep() { printf '%s' "$2" > "$state/$1.new"; mv "$state/$1.new" "$state/$1"; changed=true; }
text() { if [ -n "$1" ]; then printf '"%s"' "$1"; else printf null; fi; }
versions() { ls "$state/versions" | sed 's/.*/"&"/' | paste -sd ,; }

case $command in
  install) [ -e "$state/versions/$version" ] || { : > "$state/versions/$version"; changed=true; } ;;
  activate)
    [ "$active" = "$version" ] || { keep previous "$active"; keep active "$version"; keep good probation; } ;;
  mark-good) [ "$(cat "$state/good")" = good ] || keep good good ;;
  rollback) keep active "$previous"; keep previous '' ;;
esac
active=$(cat "$state/active")
model=$(printf '{"name": "iris", "versions": [%s], "active": "%s", "previous": %s, "state": "%s", "since": "2026-01-01T00:00:00Z", "why": "", "self_test": {"when": "2026-01-01T00:00:00Z", "rows": 59, "largest_difference": 0.0}}' \
  "$(versions)" "$active" "$(text "$(cat "$state/previous" 2> /dev/null || true)")" "$(cat "$state/good")")
case $command in
  status) printf '{"host": "simulated", "appliance": "0.1.0", "disk_free_bytes": 1000000000, "models": [%s], "service": {"running": true, "ready": true}}\n' "$model" ;;
  models) printf '{"models": [%s]}\n' "$model" ;;
  probe) printf '{"model": "iris", "version": "%s", "expected_version": "%s", "examples": 59, "failures": 0, "largest_difference": 0.0, "found": "", "seconds": {"median": 0.001, "p99": 0.002}}\n' "$active" "$active" ;;
  verify) printf '{"model": "iris", "version": "%s", "sound": true, "signed": true, "signer": "simulated", "self_test": null}\n' "$version" ;;
  install) printf '{"model": "iris", "version": "%s", "changed": %s}\n' "$version" "$changed" ;;
  *) printf '{"model": "iris", "changed": %s, "active": "%s", "state": "%s", "previous": %s}\n' "$changed" "$active" "$(cat "$state/good")" "$(text "$(cat "$state/previous" 2> /dev/null || true)")" ;;
esac
