#!/bin/sh
# Writes the lock files: exact versions with hashes for every platform and Python >= 3.11, and no host name.
# Each includes the one before, so that the device, the build machine and development run the same versions.
# Extras stay with the names, and the name alone is pinned beside: pip looks at each by itself, and would take a newer
# release, without a hash, for the one that is not.
set -eu
lock="$1 pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-strip-extras --quiet"
compile="$lock pyproject.toml"
$compile -o requirements/device.txt
# What is shipped ready-made, as image or as binary in the kit: the device, and the viewer of /docs.
$compile --extra docs -c requirements/device.txt -o requirements/shipped.txt
$compile --extra convert -c requirements/device.txt -o requirements/convert.txt
# What `make run` has beside the build machine's.
$lock --group run -c requirements/convert.txt -o requirements/run.txt
$compile --extra convert --group dev -c requirements/convert.txt -c requirements/run.txt -o requirements/dev.txt
# Apart from the others: MLflow's server holds pyarrow and more below what they run.
$compile --extra convert --extra mlflow --extra dvc --extra s3 --group sources -o requirements/sources.txt
# Ray, Spark and Dask, for `make score-engines-test`: large.
$compile --extra parquet --extra ray --group engines -c requirements/dev.txt -o requirements/score-engines.txt
# What builds our wheel inside the images: pyproject.toml's own build system.
{
  echo '# What builds our wheel inside the image, pinned by hash; made by requirements/lock.sh.'
  sed -n '/^\[build-system\]/,/^$/s/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml |
    $lock - --no-annotate
} > packaging/docker/build.txt.new
mv packaging/docker/build.txt.new packaging/docker/build.txt
# What makes the binary, and what checks bills of materials against their schema.
printf 'pip\npyinstaller\nsetuptools\n' | $lock - --no-annotate -o packaging/pyinstaller/requirements.txt
printf 'cyclonedx-python-lib[json-validation]\n' | $lock - --no-annotate -o packaging/sbom/requirements.txt
# What makes, checks and publishes the sdist and the wheel, and what installs them in `make wheel-test`.
printf 'pipx\nsetuptools\ntwine\nuv\n' | $lock - --no-annotate -c packaging/docker/build.txt -o packaging/release/wheel.txt
# The fleet's controller and its lints: apart, since no host and no build needs them.
$lock requirements/ansible.in -o requirements/ansible.txt
# What asks for known vulnerabilities of the locks, and what fuzzes the decoders.
printf 'pip-audit\n' | $lock - --no-annotate -o requirements/audit.txt
printf 'atheris\n' | $lock - --no-annotate -o requirements/attack.txt
# What generates a client from /openapi.json: apart, as its typer is older than the others'.
printf 'openapi-python-client\n' | $lock - --no-annotate -o requirements/typed-client.txt
# What makes the documentation site.
printf 'mkdocs-material\n' | $lock - --no-annotate -o requirements/docs.txt
for file in requirements/*.txt; do
  awk '{ print }
    / --hash=/ { hashes = hashes ? hashes "\n" $0 : $0; if (pin && !/\\$/) { print pin "\n" hashes; pin = "" } next }
    { pin = ""; hashes = "" }
    /^[a-zA-Z0-9._-]+\[[^]]*\]==/ { pin = $0; sub(/\[[^]]*\]/, "", pin) }' "$file" > "$file.new"
  mv "$file.new" "$file"
done
