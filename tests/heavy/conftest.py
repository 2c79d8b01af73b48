"""What the tests of the packages share: the iris model as bundles."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and convert the iris model; the folder of iris-1.0.0.bundle and iris-2.0.0.bundle, readable for all."""
    work = tmp_path_factory.mktemp("iris")
    folder = tmp_path_factory.mktemp("bundles")
    subprocess.run([sys.executable, str(ROOT / "examples/iris/train.py"), str(work)], check=True, capture_output=True)
    convert = [
        str(Path(sys.executable).with_name("appliance")),
        "convert",
        str(work / "model.joblib"),
        "--name",
        "iris",
    ]
    sample = ["--sample", str(work / "sample.csv"), "--target", "species"]
    for version in ("1.0.0", "2.0.0"):
        subprocess.run([*convert, *sample, "--version", version, "-o", str(folder)], check=True, capture_output=True)
    folder.chmod(0o755)
    for bundle in folder.iterdir():
        bundle.chmod(0o644)
    return folder
