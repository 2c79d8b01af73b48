"""Real registries on this machine: an MLflow server, a DVC repository, and moto's S3 and SageMaker."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def iris():
    return load_iris(return_X_y=True, as_frame=True)


@pytest.fixture(scope="session")
def model(iris):
    return LogisticRegression(max_iter=500).fit(*iris)


@pytest.fixture(scope="session")
def files(tmp_path_factory, iris, model):
    """A folder with model.skops and sample.csv."""
    folder = tmp_path_factory.mktemp("files")
    skops.io.dump(model, folder / "model.skops")
    iris[0].to_csv(folder / "sample.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """The address of an MLflow server with a SQLite store and local artifacts; its settings are in the environment."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, *stores], stdout=log, stderr=log, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _await(f"{address}/health", server, folder / "log")
        os.environ["MLFLOW_TRACKING_URI"] = address
        yield address
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="session")
def aws():
    """The address of moto's server; AWS_ENDPOINT_URL and credentials that open it are in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    os.environ.update(settings)
    yield settings["AWS_ENDPOINT_URL"]
    for name in settings:
        os.environ.pop(name)
    server.stop()


@pytest.fixture
def convert(tmp_path):
    """Run `appliance convert` into tmp_path."""

    def convert(*arguments, folder=tmp_path):
        command = [sys.executable, "-c", "from appliance.cli import main; main()", "convert", *map(str, arguments)]
        options = ["--name", "iris", "--version", "1.0.0", "-o", str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([*command, *options], capture_output=True, text=True, cwd=folder, env=environment)

    return convert


def _await(url, server, log):
    for _ in range(1200):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the MLflow server does not answer: {log.read_text()[-2000:]}")
