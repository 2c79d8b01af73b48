"""`appliance score` reads and writes objects of S3, as moto's server speaks it: whole, or not at all."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

ROOT = Path(__file__).parents[4]
HEADER = "sepal_length,sepal_width,petal_length,petal_width"


@pytest.fixture
def bucket(aws):
    """The file system of a fresh bucket, and its name."""
    scheme, _, host = aws.partition("://")
    system = fs.S3FileSystem(endpoint_override=host, scheme=scheme, allow_bucket_creation=True)
    name = f"scores-{os.urandom(4).hex()}"
    system.create_dir(name)
    return system, name


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("bundles", ROOT / "tests" / "appliance" / "conftest.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    path = tmp_path_factory.mktemp("bundle") / "iris-1.0.0.bundle"
    path.write_bytes(made.build_bundle())
    return path


def score(state: Path, *arguments: object) -> subprocess.CompletedProcess:
    code = "from appliance.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "APPLIANCE_STATE_DIR": str(state)}
    command = [sys.executable, "-c", code, "score", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def put(bucket, key: str, content: bytes) -> str:
    system, name = bucket
    with system.open_output_stream(f"{name}/{key}") as file:
        file.write(content)
    return f"s3://{name}/{key}"


def get(bucket, key: str) -> bytes:
    system, name = bucket
    with system.open_input_stream(f"{name}/{key}") as file:
        return file.read()


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "parquet"])
def test_objects_in_and_out(bucket, bundle, tmp_path, suffix):
    rows = "".join(f"{row},2,3,4\n" for row in range(20_000))
    local = tmp_path / "rows.csv"
    local.write_text(f"{HEADER}\n{rows}")
    source = tmp_path / f"in.{suffix}"
    made = score(tmp_path, bundle, local, "-o", source, "--keep", HEADER.split(",")[0])
    assert made.returncode == 0, made.stderr
    put(bucket, "in/rows.csv", local.read_bytes())
    for inputs in (f"s3://{bucket[1]}/in/rows.csv", f"s3://{bucket[1]}/in"):
        result = score(
            tmp_path, bundle, inputs, "-o", f"s3://{bucket[1]}/out.{suffix}", "--keep", "sepal_length", "--json"
        )
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["rows"] == 20_000
        assert get(bucket, f"out.{suffix}") == source.read_bytes()
    assert not [path for path in (tmp_path / "score").rglob("*") if path.is_file()]


def test_an_object_that_is_absent_is_not_found(bucket, bundle, tmp_path):
    result = score(tmp_path, bundle, f"s3://{bucket[1]}/nix.csv", "-o", tmp_path / "out.csv")
    assert result.returncode == 4
    assert "no such object" in result.stderr


def test_what_could_not_be_uploaded_is_uploaded_by_the_next_run(bucket, bundle, tmp_path):
    local = tmp_path / "rows.csv"
    local.write_text(f"{HEADER}\n1,2,3,4\nx,2,3,4\n")
    late = f"late-{os.urandom(4).hex()}"
    arguments = (bundle, local, "-o", f"s3://{late}/out.csv", "--bad-rows", "quarantine", "--json")
    failed = score(tmp_path, *arguments)
    assert failed.returncode == 1
    assert "it goes on there" in failed.stderr
    bucket[0].create_dir(late)
    again = score(tmp_path, *arguments)
    assert json.loads(again.stdout.split("\n}\n")[0] + "\n}")["resumed"] == 2
    assert get((bucket[0], late), "out.csv").decode().splitlines()[1:] == ["1,2,3,4,110.0", "x,2,3,4,"]
    assert b'"row":1' in get((bucket[0], late), "out.csv.rejected.jsonl")
