"""Other programs that score the same files with the same forest: pandas and the pickle, MLflow, MLServer, Ray Data, and
Spark with MLflow's function.

All but the first live in environments of their own in BENCH_PEERS_DIR (a folder of the temporary directory by default),
which are made once. Spark needs Java. Each is used as its own pages show, with one processor.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import free_port

_PANDAS = """
import sys, joblib, pandas as pd
model = joblib.load(sys.argv[1])
model.n_jobs = 1
first = True
for rows in pd.read_csv(sys.argv[2], chunksize=4096, dtype="float32"):
    values = rows.to_numpy()
    rows["prediction"] = model.predict(values)
    probability = model.predict_proba(values)
    for index, label in enumerate(model.classes_):
        rows[f"probability_{label}"] = probability[:, index]
    rows.to_csv(sys.argv[3], mode="w" if first else "a", header=first, index=False)
    first = False
"""
_MLFLOW = """
import sys, joblib, mlflow.sklearn
mlflow.sklearn.save_model(joblib.load(sys.argv[1]), sys.argv[2], serialization_format="cloudpickle")
"""
_REQUESTS = """
import json, sys
with open(sys.argv[1]) as rows, open(sys.argv[2], "w") as requests:
    next(rows)
    for line in rows:
        data = [float(cell) for cell in line.split(",")]
        tensor = {"name": "x", "shape": [1, len(data)], "datatype": "FP32", "data": data}
        requests.write(json.dumps({"inputs": [tensor]}) + "\\n")
"""
_MLSERVER = """
import socket, subprocess, sys, time
program, home, address, requests, answers = sys.argv[1:]
server = subprocess.Popen([program, "start", home])
try:
    host, port = address.split(":")
    while server.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    time.sleep(2)
    command = [program, "infer", "-u", address, "-m", "forest", "-i", requests, "-o", answers, "-w", "8"]
    sys.exit(subprocess.run(command).returncode)
finally:
    server.terminate()
    server.wait()
"""
RAY = "(Ray Data, map_batches)"
_RAY = """
# docs.ray.io/en/latest/data/batch_inference.html: a class that holds the model, given to map_batches.
import os, sys
import joblib, numpy as np, ray

class Predictor:
    def __init__(self, path):
        self.model = joblib.load(path)
        self.model.n_jobs = 1

    def __call__(self, batch):
        values = np.column_stack([batch[name].astype("float32") for name in batch])
        batch["prediction"] = self.model.predict(values)
        probability = self.model.predict_proba(values)
        for index, label in enumerate(self.model.classes_):
            batch[f"probability_{label}"] = probability[:, index]
        return batch

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)  # the actor; reading, writing
rows = ray.data.read_csv(sys.argv[2])
scored = rows.map_batches(Predictor, fn_constructor_args=[sys.argv[1]], batch_size=4096, concurrency=1, num_cpus=1)
scored.write_csv(sys.argv[3])
ray.shutdown()
"""
_SPARK = """
# mlflow.org/docs/latest/python_api/mlflow.pyfunc.html#mlflow.pyfunc.spark_udf
import sys
import mlflow.pyfunc
from pyspark.sql import SparkSession
from pyspark.sql.functions import struct

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
with open(sys.argv[2]) as file:
    names = file.readline().strip().split(",")
rows = spark.read.csv(sys.argv[2], header=True, schema=", ".join(f"{name} float" for name in names))
predict = mlflow.pyfunc.spark_udf(spark, sys.argv[1], result_type="long", env_manager="local")
rows.withColumn("prediction", predict(struct(*names))).write.csv(sys.argv[3], header=True)
spark.stop()
"""
_PACKAGES = {
    "mlflow": ["mlflow", "pyspark"],
    "ray": ["ray[data]"],
    # From 0.22 on uvloop makes no event loop unasked; MLServer's parallel workers then die at their start.
    "mlserver": ["mlserver", "mlserver-sklearn", "uvloop<0.22"],
}
Run = Callable[..., Any]


def measured(folder: Path, model: Path, files: dict[str, Path], others: bool, run: Run) -> list[Any]:
    """Return the figures of each program that can be had, over the file of fewer rows."""
    rows = sum(1 for _ in files["csv"].open("rb")) - 1
    output = folder / "peer.csv"
    command = [sys.executable, "-W", "ignore", "-c", _PANDAS, str(model), str(files["csv"]), str(output)]
    found = [run("(pandas and the pickle)", command, rows)]
    if others:
        found += [one(folder, model, files["csv"], rows, run) for one in (_mlflow, _spark, _ray, _mlserver)]
    return found


def _mlflow(folder: Path, model: Path, source: Path, rows: int, run: Run) -> Any:
    """Return the figures of `mlflow models predict`."""
    python = _environment("mlflow")
    saved, output = folder / "mlflow-model", folder / "mlflow.json"
    subprocess.run(
        [str(python), "-W", "ignore", "-c", _MLFLOW, str(model), str(saved)], check=True, capture_output=True
    )
    command = [str(python), "-W", "ignore", "-m", "mlflow", "models", "predict", "-m", str(saved), "-i", str(source)]
    return run("(mlflow models predict)", [*command, "-t", "csv", "-o", str(output), "--env-manager", "local"], rows)


def _spark(folder: Path, model: Path, source: Path, rows: int, run: Run) -> Any:
    """Return the figures of mlflow.pyfunc.spark_udf, of the model that _mlflow() saved; it gives no probabilities."""
    python = _environment("mlflow")
    command = [str(python), "-W", "ignore", "-c", _SPARK, str(folder / "mlflow-model"), str(source)]
    return run(
        "(Spark, mlflow.pyfunc.spark_udf)", [*command, str(folder / "spark")], rows, {"PYSPARK_PYTHON": str(python)}
    )


def _ray(folder: Path, model: Path, source: Path, rows: int, run: Run) -> Any:
    """Return the figures of Ray Data's batch inference."""
    python = _environment("ray")
    command = [str(python), "-W", "ignore", "-c", _RAY, str(model), str(source), str(folder / "ray")]
    quiet = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    }  # no key in the home
    return run(RAY, command, rows, quiet)


def _mlserver(folder: Path, model: Path, source: Path, rows: int, run: Run) -> Any:
    """Return the figures of `mlserver infer` with the server that it asks; one request for each row."""
    python = _environment("mlserver")
    home, port = folder / "mlserver", free_port()
    home.mkdir()
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (home / "settings.json").write_text(
        json.dumps({"parallel_workers": 0, "debug": False, "host": "127.0.0.1", **ports})
    )
    settings = {"name": "forest", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": str(model)}}
    (home / "model-settings.json").write_text(json.dumps(settings | {"max_batch_size": 256, "max_batch_time": 0.01}))
    requests, output = folder / "requests.jsonl", folder / "answers.jsonl"
    subprocess.run([sys.executable, "-c", _REQUESTS, str(source), str(requests)], check=True)
    command = [str(python), "-c", _MLSERVER, str(python.parent / "mlserver"), str(home), f"127.0.0.1:{port}"]
    return run("(mlserver infer, with its server)", [*command, str(requests), str(output)], rows)


def _environment(peer: str) -> Path:
    """Return the Python of a peer's environment, made where it is absent."""
    base = Path(os.environ.get("BENCH_PEERS_DIR", Path(tempfile.gettempdir()) / "appliance-bench-peers"))
    python = base / f"score-{peer}" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        packages = [*_PACKAGES[peer], f"scikit-learn=={version('scikit-learn')}"]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python
