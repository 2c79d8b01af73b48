"""A client that openapi-python-client generates from /openapi.json: its calls are typed, and a real service answers."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

APPLIANCE = Path(sys.executable).with_name("appliance")
TOOLS = Path(os.environ.get("TYPED_CLIENT", ".cache/typed-client")).resolve() / "bin"

PROGRAM = """
import json
import sys

from edge_inference_appliance_client import Client
from edge_inference_appliance_client.api.appliance import get_models, post_models_name_predict, post_predict
from edge_inference_appliance_client.api.k_serve_v_1 import post_v1_models_name_predict
from edge_inference_appliance_client.api.open_inference_protocol_v_2 import post_v2_models_name_infer
from edge_inference_appliance_client.models import (
    InferAnswer, InferInput, InferInputDatatype, InferRequest, Instances, Models, PredictAnswer,
    PredictAnswerProbabilityItemType0, PredictRequest, Predictions, ProblemDetails,
)

client = Client(base_url=sys.argv[1])
ROW = [6.3, 3.3, 6.0, 2.5]

one = post_predict.sync(client=client, body=PredictRequest(features=[ROW]))
assert isinstance(one, PredictAnswer)
labels: list = one.prediction
assert isinstance(one.probability, list)
(probability,) = one.probability
assert isinstance(probability, PredictAnswerProbabilityItemType0)

wrong = post_models_name_predict.sync("iris", client=client, body=PredictRequest(features=[[1.0]]))
assert isinstance(wrong, ProblemDetails)

tensor = InferInput(name="input-0", shape=[1, 4], datatype=InferInputDatatype.FP32, data=ROW)
inferred = post_v2_models_name_infer.sync("iris", client=client, body=InferRequest(inputs=[tensor]))
assert isinstance(inferred, InferAnswer)

kserve = post_v1_models_name_predict.sync("iris", client=client, body=Instances(instances=[ROW]))
assert isinstance(kserve, Predictions)

models = get_models.sync(client=client)
assert isinstance(models, Models)

print(json.dumps({
    "labels": labels,
    "probability": probability.additional_properties,
    "wrong": [wrong.status, wrong.found],
    "outputs": [output.name for output in inferred.outputs],
    "first": inferred.outputs[0].data,
    "kserve": kserve.predictions,
    "models": [(model.name, model.active, model.versions[0].inputs[0].shape) for model in models.models],
}))
"""


@pytest.fixture(scope="module")
def service(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the iris model; its URL."""
    state = tmp_path_factory.mktemp("state")
    environment = os.environ | {"APPLIANCE_STATE_DIR": str(state)}
    for words in (("install", str(bundles / "iris-1.0.0.bundle")), ("activate", "iris", "1.0.0")):
        subprocess.run([APPLIANCE, *words], check=True, capture_output=True, env=environment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([APPLIANCE, "serve", "--port", str(port)], env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/ready", timeout=5):
                    break
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def generated(service: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds the package of the generated client, and what the generator said."""
    folder = tmp_path_factory.mktemp("generated")
    with urllib.request.urlopen(f"{service}/openapi.json", timeout=30) as answer:
        (folder / "openapi.json").write_bytes(answer.read())
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    command = [TOOLS / "openapi-python-client", "generate", "--path", folder / "openapi.json", "--meta", "none"]
    command += ["--output-path", folder / "edge_inference_appliance_client"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PATH": path})
    (folder / "said").write_text(done.stdout + done.stderr)
    return folder


def test_no_type_is_lost(generated: Path) -> None:
    said = (generated / "said").read_text()
    # It knows no bodies of text, and no pictures; nothing else is left out.
    kinds = "text/csv|application/jsonlines|image/svg[+]xml"
    assert not re.sub(rf"Unsupported content[_ ]type ({kinds})", "", said).count("nsupported")
    assert "Unable to process schema" not in said
    assert "removal of" not in said


def test_answers_are_typed(generated: Path, service: str) -> None:
    (generated / "program.py").write_text(PROGRAM)
    command = [TOOLS / "python", generated / "program.py", service]
    done = subprocess.run(command, capture_output=True, text=True, cwd=generated)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["labels"] == got["kserve"] == got["first"] == ["virginica"]
    assert list(got["probability"]) == ["setosa", "versicolor", "virginica"]
    assert got["probability"]["virginica"] == pytest.approx(0.99154729, rel=1e-5)
    assert got["wrong"] == [400, "row 0 has 1 values"]
    assert got["outputs"] == ["prediction", "probability"]
    assert got["models"] == [["iris", "1.0.0", [-1, 4]]]


def test_page_is_html_where_a_browser_asks(service: str) -> None:
    with urllib.request.urlopen(f"{service}/openapi.json", timeout=30) as answer:
        content = json.load(answer)["paths"]["/"]["get"]["responses"]["200"]["content"]
    assert content["text/html"] == {"schema": {"type": "string"}}
    request = urllib.request.Request(service, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
