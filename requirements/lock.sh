#!/bin/sh
# Writes the lock files: exact versions with hashes for every platform and Python >= 3.11, and no host name.
# Each includes the one before, so that the device, the build machine and development run the same versions.
set -eu
compile="$1 pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet"
$compile -o requirements/device.txt
$compile --extra convert -c requirements/device.txt -o requirements/convert.txt
$compile --extra convert --group dev -c requirements/convert.txt -o requirements/dev.txt
# Apart from the others: MLflow's server holds pyarrow and more below what they run.
$compile --extra convert --extra mlflow --extra dvc --extra s3 --group sources -o requirements/sources.txt
