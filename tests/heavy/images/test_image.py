"""What the image of every architecture does, an emulated one too."""

import json
import tarfile
from pathlib import Path

import pytest
from containers import ARCHIVE, FLOWERS, ask, docker, wait_for

from appliance.bundle import archive


def close(answer: object, expected: object, relative: float, absolute: float) -> bool:
    """Return whether two answers have the same labels, and numbers within the tolerance."""
    if isinstance(expected, dict):
        return (
            isinstance(answer, dict)
            and list(answer) == list(expected)
            and all(close(answer[key], expected[key], relative, absolute) for key in expected)
        )
    if isinstance(expected, list):
        return (
            isinstance(answer, list)
            and len(answer) == len(expected)
            and all(close(*pair, relative, absolute) for pair in zip(answer, expected, strict=True))
        )
    return answer == (pytest.approx(expected, relative, absolute) if isinstance(expected, float) else expected)


def test_it_answers_as_this_host_does_within_the_tolerance_of_the_certificate(
    start, preloaded, open_port, expected, bundles
):
    container = start(*preloaded, *open_port).ready()
    status, answer = ask(f"{container.url}/predict", {"features": FLOWERS})
    tolerance = archive.open_bundle(bundles / "iris-1.0.0.bundle").manifest.policy.tolerance
    assert status == 200
    assert close(answer, expected, tolerance.relative, tolerance.absolute), (answer, expected)
    pairs = zip(answer["probability"], expected["probability"], strict=True)
    difference = max(abs(one[label] - other[label]) for one, other in pairs for label in one)
    print(f"largest difference of a probability: {difference:.3g}")


def test_open_inference_gives_the_same_labels(start, preloaded, open_port, expected):
    container = start(*preloaded, *open_port, command=("serve",)).ready()
    names = [tensor["name"] for tensor in ask(f"{container.url}/v2/models/iris")[1]["inputs"]]
    columns = [[row[i] for row in FLOWERS] for i in range(len(FLOWERS[0]))]
    if len(names) == 1:
        inputs = [{"name": names[0], "shape": [3, 4], "datatype": "FP32", "data": FLOWERS}]
    else:
        inputs = [
            {"name": name, "shape": [3, 1], "datatype": "FP32", "data": column}
            for name, column in zip(names, columns, strict=True)
        ]
    status, answer = ask(f"{container.url}/v2/models/iris/infer", {"inputs": inputs})
    assert status == 200, answer
    assert next(o["data"] for o in answer["outputs"] if o["name"] == "prediction") == expected["prediction"]


def test_its_self_test_passes_on_that_processor_and_its_health_check_says_healthy(start, preloaded, open_port):
    container = start(*preloaded, *open_port, "--health-interval=2s").ready()
    verified = container.run("appliance", "verify", "/bundles/iris-2.0.0.bundle", "--self-test")
    assert verified.returncode == 0
    model = json.loads(container.run("appliance", "status", "--json").stdout)["models"][0]
    assert model["self_test"]["rows"] > 0
    probed = json.loads(container.run("appliance", "probe", "iris", "--wait", "60", "--json").stdout)
    assert (probed["failures"], probed["version"]) == (0, "1.0.0")
    assert container.run("appliance", "pull", "--help").returncode == 0
    wait_for(lambda: container.inspect("{{.State.Health.Status}}") == "healthy", "healthy")


def test_its_archive_names_the_image_that_was_loaded_and_when_it_was_made(image):
    with tarfile.open(ARCHIVE) as saved:
        manifest = json.load(saved.extractfile("manifest.json"))[0]
    loaded = json.loads(docker("image", "inspect", image).stdout)[0]
    assert loaded["Id"].removeprefix("sha256:") == Path(manifest["Config"]).stem
    labels = loaded["Config"]["Labels"]
    assert labels["org.opencontainers.image.created"] == loaded["Created"]
    assert loaded["Config"]["User"] == "10001:0"
