#!/bin/sh
# check.sh: whether the tag in TAG names this commit's version, and the changelog tells of it. Run from the project's root.
set -eu
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
if [ "${TAG-}" != "v$version" ]; then
  echo "release: the tag is '${TAG-}', pyproject.toml says version $version: tag v$version, or change the version first" >&2
  exit 1
fi
pattern=$(printf '%s' "$version" | sed 's/[.+]/\\&/g')
grep -qE "^## \[?$pattern\]?( - [0-9]{4}-[0-9]{2}-[0-9]{2})?\$" CHANGELOG.md || {
  echo "release: CHANGELOG.md has no section '## $version - YYYY-MM-DD': put the date in the place of 'unreleased'" >&2
  exit 1
}
echo "release $version"
