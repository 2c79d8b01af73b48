"""A bundle's bill of materials, as packaging/sbom/bundle.py prints it."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "packaging" / "sbom" / "bundle.py"


def printed(bundle: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, bundle], capture_output=True, text=True, check=False)


def test_model_is_named_with_the_digest_of_its_graph(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path)
    component = json.loads(printed(bundle).stdout)["metadata"]["component"]
    graph = zipfile.ZipFile(bundle).read("model.onnx")
    assert (component["type"], component["name"], component["version"]) == ("machine-learning-model", "iris", "1.0.0")
    assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(graph).hexdigest()}]
    assert component["modelCard"]["modelParameters"]["task"] == "regression"


def test_same_bundle_gives_the_same_document(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path)
    assert printed(bundle).stdout == printed(bundle).stdout


def test_damaged_bundle_is_refused_with_the_reason(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path)
    bundle.write_bytes(bundle.read_bytes()[:-100])
    done = printed(bundle)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
