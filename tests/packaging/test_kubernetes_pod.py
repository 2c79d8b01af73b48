"""What a pod of the manifests runs, run here in its order with its files: init container, service, probes, end."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LinearRegression

from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
KUSTOMIZE = shutil.which("kustomize") or str(ROOT / ".cache/kustomize/usr/bin/kustomize")
APPLIANCE = Path(sys.executable).with_name("appliance")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """A folder with a bundle signed by plant.key; plant.pub beside it."""
    folder = tmp_path_factory.mktemp("bundles")
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    joblib.dump(LinearRegression().fit(rows, rows["a"] + rows["b"]), folder / "model.joblib")
    rows.to_csv(folder / "sample.csv", index=False)
    command(folder, "keygen", "plant", "--no-password")
    command(
        folder,
        "convert",
        "model.joblib",
        "--name=iris",
        "--version=1.0.0",
        "--sample=sample.csv",
        "--sign=plant",
        "-o",
        "b",
    )
    return folder


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
    return subprocess.run(
        [APPLIANCE, *arguments], cwd=folder, env={**clean, **environment}, capture_output=True, text=True, check=True
    )


@pytest.fixture
def pod(tmp_path, bundles) -> dict[str, Any]:
    """The pod of overlays/site with each path below tmp_path, and the files that a cluster would mount there."""
    shutil.copytree(ROOT / "packaging" / "kubernetes", tmp_path / "kubernetes")
    shutil.copy(bundles / "plant.pub", tmp_path / "kubernetes/overlays/site/bundles.pub")
    built = subprocess.run(
        [KUSTOMIZE, "build", tmp_path / "kubernetes/overlays/site"], capture_output=True, text=True, check=True
    ).stdout
    text = built
    for mounted in (
        "/var/lib/appliance",
        "/etc/appliance-keys",
        "/etc/appliance/",
        "/run/secrets/appliance",
        "/bundles",
    ):
        text = text.replace(f" {mounted}", f" {tmp_path}{mounted}").replace(f'"{mounted}', f'"{tmp_path}{mounted}')
    documents = list(yaml.safe_load_all(text))
    files = {name: content for one in documents if one["kind"] == "ConfigMap" for name, content in one["data"].items()}
    place(tmp_path / "etc/appliance/appliance.toml", files["appliance.toml"])
    place(tmp_path / "etc/appliance-keys/bundles.pub", files["bundles.pub"])
    place(tmp_path / "run/secrets/appliance/tokens", f"predict {'t' * 24}\n", 0o440)
    shutil.copytree(bundles / "b", tmp_path / "bundles")
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    return deployment["spec"]["template"]["spec"]


def place(path: Path, content: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


def environment(container: dict[str, Any], state: Path) -> dict[str, str]:
    """Return the variables of a container, the image's own, and where the state is: the one path that is a default."""
    stated = {variable["name"]: variable["value"] for variable in container["env"]}
    return {"APPLIANCE_HTTP_HOST": "0.0.0.0", "APPLIANCE_STATE_DIR": str(state), **stated}


def test_a_pod_becomes_ready_answers_who_has_a_token_and_ends_in_time(pod, tmp_path, until):
    state = tmp_path / "var/lib/appliance"
    (first,) = pod["initContainers"]
    pulled = command(tmp_path, *first["args"], **environment(first, state))
    assert pulled.stdout == "iris 1.0.0 activated\n"
    (container,) = pod["containers"]
    port = free_port()
    clean = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
    variables = {**clean, **environment(container, state), "APPLIANCE_HTTP_PORT": str(port)}
    process = subprocess.Popen([APPLIANCE, *container["args"]], env=variables, stderr=subprocess.PIPE, text=True)
    try:
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container[name]["httpGet"]["path"]
            until(lambda path=path: ask(port, "GET", path)[0] == 200, f"{name}")
        asked = json.dumps({"features": [1.0, 2.0]})
        assert ask(port, "POST", "/predict", asked)[0] == 401
        status, body = ask(port, "POST", "/predict", asked, Authorization=f"Bearer {'t' * 24}")
        assert status == 200
        assert json.loads(body)["prediction"] == [pytest.approx(3.0, abs=1e-4)]
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(pod["terminationGracePeriodSeconds"])
    assert ended == 0, process.stderr.read() if process.stderr else ""


def test_a_bundle_of_another_key_keeps_the_pod_from_starting(pod, tmp_path, bundles):
    (first,) = pod["initContainers"]
    other = tmp_path / "other"
    other.mkdir()
    command(other, "keygen", "key", "--no-password")
    shutil.copy(other / "key.pub", tmp_path / "etc/appliance-keys/bundles.pub")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        command(tmp_path, *first["args"], **environment(first, tmp_path / "var/lib/appliance"))
    assert caught.value.returncode == 3


def ask(port: int, method: str, path: str, body: str = "", **headers: str) -> tuple[int, bytes]:
    """Return status and body; 0 where nobody listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()
