"""The sdist and the wheel of `make wheel` in bare environments: the base, each extra alone, all together, uv and pipx.

They install with uv, which `make wheel` has in its environment, from the index that pip is configured for.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest

ROOT = Path(__file__).parents[2]
OUT = Path(os.environ["WHEEL"]).resolve()
(WHEEL,) = OUT.glob("*.whl")
(SDIST,) = OUT.glob("*.tar.gz")
UV, PIPX = (ROOT / ".cache/wheel/bin" / name for name in ("uv", "pipx"))
EXTRAS = os.environ.get("EXTRAS", "").split() or sorted(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)
ROWS = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n6.3,3.3,6.0,2.5\n"
CBOR = '[mqtt]\nhost = "127.0.0.1"\nport = 1\n[[mqtt.subscriptions]]\ntopic = "a"\nanswer = "b"\npayload = "cbor"\n'
HOME_VARIABLES = ("PYTHONPATH", "VIRTUAL_ENV", "APPLIANCE_STATE_DIR", "APPLIANCE_CONFIG")

Install = Callable[..., "Bare"]


def clean(**more: str) -> dict[str, str]:
    """Return the environment without what would lead into this clone."""
    return {key: value for key, value in os.environ.items() if key not in HOME_VARIABLES} | more


def done(*line: object, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [*map(str, line)], env=clean(**more), cwd="/", capture_output=True, text=True, check=False, timeout=3000
    )
    assert ran.returncode == code, f"{line}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran


class Bare:
    """An environment that holds the appliance and nothing that was not asked for."""

    def __init__(self, folder: Path, *what: str) -> None:
        self.folder = folder
        done(UV, "venv", "--quiet", "--python", sys.executable, folder)
        self.python = folder / "bin/python"
        done(UV, "pip", "install", "--quiet", "--python", self.python, *what)
        done(UV, "pip", "check", "--quiet", "--python", self.python)

    def __call__(self, *words: object, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `appliance` with its own state folder."""
        more = {"APPLIANCE_STATE_DIR": str(self.folder / "state")} | more
        return done(self.folder / "bin/appliance", *words, code=code, **more)

    def modules(self) -> set[str]:
        """Return the names of the installed distributions."""
        listed = done(UV, "pip", "list", "--quiet", "--format", "json", "--python", self.python).stdout
        return {one["name"] for one in json.loads(listed)}

    def serve_iris(self, bundles: Path) -> None:
        """Install and activate the iris model; ask for a row, and for the dashboard over HTTP."""
        self("install", bundles / "iris-1.0.0.bundle")
        self("activate", "iris", "1.0.0")
        assert "virginica" in self("predict", "iris", "[6.3, 3.3, 6.0, 2.5]").stdout
        environment = clean(APPLIANCE_STATE_DIR=str(self.folder / "state"))
        line = [str(self.folder / "bin/appliance"), "serve", "--port", "0"]
        with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as service:
            try:
                url = next(
                    found[0] for text in service.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", text))
                )
                page = urllib.request.Request(url, headers={"Accept": "text/html"})
                with urllib.request.urlopen(page, timeout=60) as answer:
                    files = re.findall(r'(?:src|href)="([^"#:]+\.(?:js|css|svg))"', answer.read().decode())
                assert len(files) >= 2
                for file in files:
                    with urllib.request.urlopen(urljoin(f"{url}/", file), timeout=60) as answer:
                        assert answer.read()
            finally:
                service.terminate()
                service.communicate(timeout=60)


@pytest.fixture(scope="module", params=[WHEEL, SDIST], ids=["wheel", "sdist"])
def base(request, tmp_path_factory) -> Bare:
    return Bare(tmp_path_factory.mktemp("base") / "env", str(request.param))


def test_the_base_serves_a_model_and_its_dashboard(base, bundles):
    base.serve_iris(bundles)
    assert base.modules() & {"scikit-learn", "pandas", "onnx", "pyarrow", "skl2onnx", "joblib"} == set()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("convert", ("convert", "model.joblib", "--name", "a", "--version", "1.0.0")),
        ("convert", ("lint", "model.joblib")),
        ("parquet", ("score", "iris", "{rows}", "-o", "{folder}/scored.parquet")),
        ("parquet", ("score", "iris", "s3://bucket/rows.csv", "-o", "scored.csv")),
        ("ray", ("score", "iris", "{rows}", "-o", "{folder}/scored.csv", "--cluster", "local")),
    ],
)
def test_what_needs_an_extra_says_which(base, bundles, extra, words):
    base("install", bundles / "iris-1.0.0.bundle")
    base("activate", "iris", "1.0.0")
    (base.folder / "rows.csv").write_text(ROWS)
    ran = base(*(word.format(rows=base.folder / "rows.csv", folder=base.folder) for word in words), code=2)
    assert f"pip install 'edge-inference-appliance[{extra}]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_payload_that_needs_an_extra_says_which(base, bundles):
    # Sparkplug's protobuf comes with onnxruntime too, so nothing can lack it today.
    base("install", bundles / "iris-1.0.0.bundle")
    base("activate", "iris", "1.0.0")
    config = base.folder / "cbor.toml"
    config.write_text(CBOR)
    ran = base("serve", "--port", "0", "--config", config, code=2)
    assert "pip install 'edge-inference-appliance[cbor]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_list_of_commands_says_what_needs_the_extra(base):
    assert base("--help").stdout.count("[convert]") == 2


WORK = {
    "cbor": "from appliance.mqtt.codec import _cbor; assert _cbor().loads(b'\\x01') == 1",
    "sparkplug": "from appliance.mqtt.sparkplug import _payload_class; assert _payload_class()().IsInitialized()",
}
"""What shows that an extra does its work, where importing its modules is not all."""


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_alone_brings_what_it_says(tmp_path, bundles, extra):
    bare = Bare(tmp_path / "env", f"{WHEEL}[{extra}]")
    code = f"""
import importlib
from appliance import extras
assert extras.lacking({extra!r}) == []
for module in extras.MODULES[{extra!r}]: importlib.import_module(module)
{WORK.get(extra, "")}"""
    done(bare.python, "-c", code)
    if extra in ("parquet", "ray"):
        bare("install", bundles / "iris-1.0.0.bundle")
        bare("activate", "iris", "1.0.0")
        (bare.folder / "rows.csv").write_text(ROWS)
        name = "scored.parquet" if extra == "parquet" else "scored.csv"
        more = ["--cluster", "local"] if extra == "ray" else []
        bare("score", "iris", bare.folder / "rows.csv", "-o", bare.folder / name, *more)
        assert (bare.folder / name).exists()
    if extra == "convert":
        convert_iris(bare)


def convert_iris(bare: Bare) -> None:
    """Train and convert the iris model in a bare environment."""
    done(bare.python, ROOT / "examples/iris/train.py", bare.folder / "work")
    work = bare.folder / "work"
    named = ("--name", "iris", "--version", "1.0.0", "--sample", work / "sample.csv", "--target", "species")
    bare("lint", work / "model.joblib")
    bare("convert", work / "model.joblib", *named, "-o", work)
    assert (work / "iris-1.0.0.bundle").exists()


def test_all_extras_live_together(tmp_path):
    if len(EXTRAS) > 1:  # EXTRAS of the command line: only what it names
        convert_iris(Bare(tmp_path / "env", f"{WHEEL}[{','.join({*EXTRAS, 'convert'})}]"))


@pytest.mark.parametrize("what", ["base", "convert"])
def test_uv_tool_and_pipx_install_the_command(tmp_path, what):
    extra = "" if what == "base" else "[convert]"
    places = {
        "UV_TOOL_DIR": str(tmp_path / "uv"),
        "UV_TOOL_BIN_DIR": str(tmp_path / "uv-bin"),
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(tmp_path / "pipx-bin"),
    }
    done(UV, "tool", "install", "--quiet", "--python", sys.executable, f"{WHEEL}{extra}", **places)
    done(PIPX, "install", "--python", sys.executable, f"{WHEEL}{extra}", **places)
    for folder in ("uv-bin", "pipx-bin"):
        command = tmp_path / folder / "appliance"
        assert done(command, "--version").stdout.startswith("appliance, version ")
        assert done(command, "lint", "absent.joblib", code=4 if extra else 2).stderr
