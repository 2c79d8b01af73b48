"""The Debian package of the binary, as lintian sees it; `make binary-test` runs it."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_lintian_finds_no_error_in_the_package(tmp_path):
    line = ["sh", ROOT / "packaging/debian/deb.sh", os.environ["BINARY"], tmp_path]
    subprocess.run(line, check=True, capture_output=True, timeout=600)
    (package,) = tmp_path.glob("*.deb")
    looked = subprocess.run(
        ["lintian", "--fail-on", "error", "--no-tag-display-limit", package],
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "\nE: " not in f"\n{looked.stdout}"
