"""The probe against a service that really listens, over models of every kind."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import appliance
from appliance.bundle import archive, examples
from appliance.cli import appliance as command
from appliance.config import Config, HttpConfig, ModelsConfig, StoreConfig
from appliance.inference import selftest
from appliance.rest.server.listener import bind
from appliance.service import Service
from appliance.store import activation, experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan
from appliance.store.versions import Store

ROOT = Path(appliance.__file__).parents[1]
TOKEN = "0123456789abcdef-predict"


class Host:
    """A state folder, a service over it on a free port, and the command run there."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.store = Store(folder / "state")
        self.settings = settings
        self.service: Service | None = None
        self.port = 1

    def install(self, bundle: Path, *, tested: bool = True) -> None:
        """Install and activate a bundle; without a self-test where it would not pass."""
        done = self.store.install(bundle)
        test = selftest.self_test if tested else lambda _: selftest.SelfTest(0, 0.0, 0, 0.0, 0.0, "")
        activation.activate(self.store, done.name, done.version, test)

    def start(self) -> None:
        config = Config(
            http=HttpConfig(port=0, **self.settings),
            models=ModelsConfig(poll_seconds=0.05),
            store=StoreConfig(state_dir=str(self.store.state_dir), preload_dir=str(self.folder / "none")),
        )
        listener = bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.service = Service(config, listener)
        ready = threading.Event()
        self.thread = threading.Thread(target=self.service.run, args=(ready.set,))
        self.thread.start()
        assert ready.wait(30)

    def stop(self) -> None:
        if self.service:
            self.service.stop()
            self.thread.join(30)

    def probe(self, *words: object, state: Path | None = None, **environment: str) -> Result:
        """Run `appliance probe` in this process."""
        place = {"APPLIANCE_STATE_DIR": str(state or self.store.state_dir), "APPLIANCE_HTTP_PORT": str(self.port)}
        arguments = ["probe", *map(str, words)]
        return CliRunner().invoke(command, arguments, env=place | environment)

    def document(self, *words: object, code: int = 0, **rest: object) -> dict:
        result = self.probe(*words, "--json", **rest)
        assert result.exit_code == code, result.output
        assert result.stderr == ""
        return json.loads(result.stdout)


@pytest.fixture
def host(tmp_path) -> Iterator[Callable[..., Host]]:
    """Return a function that makes a host: host(bundle, ..., **http settings)."""
    hosts: list[Host] = []

    def make(*bundles: Path, **settings: object) -> Host:
        hosts.append(Host(tmp_path / f"host-{len(hosts)}", **settings))
        for bundle in bundles:
            hosts[-1].install(bundle)
        hosts[-1].start()
        return hosts[-1]

    yield make
    for one in hosts:
        one.stop()


@pytest.mark.parametrize("kind", ["regression", "classifier", "labels", "table"])
def test_a_service_that_answers_as_the_original_model_passes(tmp_path, host, make_bundle, kind):
    served = host(make_bundle(tmp_path, kind=kind))
    found = served.document("iris", "--repeat", "3")
    assert {**found, "seconds": 0} == {
        "model": "iris", "version": "1.0.0", "expected_version": "1.0.0", "examples": 5, "failures": 0,
        "largest_difference": 0.0, "found": "", "seconds": 0,
    }  # fmt: skip
    assert 0 < found["seconds"]["median"] <= found["seconds"]["p99"]
    assert "iris 1.0.0 answers as the original model: 5 examples" in served.probe("iris").stdout


def test_the_active_version_is_asked_while_another_one_answers_as_a_canary(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path))
    served.store.install(make_bundle(tmp_path, version="2.0.0"))
    wish = Wish("canary", shadow=Arm("2.0.0", 1.0), plan=Plan(steps=(1.0,), hold=True))
    made = experiments.begin(served.store, "iris", wish, selftest.self_test)
    experiments.advance(served.store, "iris", made.id, 1)  # it answers every request that names no version
    for version in ("1.0.0", "2.0.0"):
        words = [] if version == "1.0.0" else ["--version", version]
        assert served.document("iris", *words)["version"] == version


def special_numbers(bundle: archive.Bundle) -> bytes:
    """Return a regression bundle that takes missing and infinite values and has some among its examples."""
    import msgspec

    (rows,), _ = examples.read(bundle.members[archive.EXAMPLES])
    rows = rows.copy()
    rows[0, 0], rows[1, 1], rows[2, 2] = np.nan, np.inf, -np.inf
    taken = [msgspec.structs.replace(tensor, missing=True, finite=False) for tensor in bundle.manifest.inputs]
    manifest = msgspec.structs.replace(bundle.manifest, inputs=taken)
    answers = [(rows.sum(axis=1) + np.float32(100)).astype(np.float32)]
    return archive.write(manifest, bundle.members[archive.MODEL], b"{}", examples.write([rows], answers))


def test_missing_and_infinite_values_go_there_and_back_exactly(tmp_path, host, bundle_bytes):
    path = tmp_path / "special.bundle"
    path.write_bytes(special_numbers(archive.read(bundle_bytes())))
    assert host(path).document("iris")["failures"] == 0


def test_more_examples_than_the_service_takes_at_once_are_asked_in_portions(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path), max_rows=2)
    asked = served.document("iris", APPLIANCE_HTTP_MAX_ROWS="2")
    assert (asked["examples"], asked["failures"]) == (5, 0)
    assert served.document("iris", APPLIANCE_HTTP_MAX_BODY_BYTES="64")["failures"] == 0


def test_a_wrong_answer_ends_with_3_and_names_the_row(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path))
    believed = Host(tmp_path / "believed")
    believed.install(make_bundle(tmp_path, error=0.5), tested=False)
    found = served.document("iris", "--repeat", "2", code=3, state=believed.store.state_dir)
    assert (found["failures"], found["largest_difference"]) == (5, 0.5)
    assert "output 'prediction'" in found["found"]
    result = served.probe("iris", state=believed.store.state_dir)
    assert result.exit_code == 3
    assert "error: probe iris 1.0.0 at http://127.0.0.1:" in result.stderr
    assert "appliance rollback iris" in result.stderr


def test_another_version_than_the_active_one_ends_with_3(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path))
    believed = Host(tmp_path / "believed")
    believed.install(make_bundle(tmp_path, version="2.0.0"))
    found = served.document("iris", "--wait", "0", code=3, state=believed.store.state_dir)
    assert (found["version"], found["expected_version"], found["failures"]) == ("1.0.0", "2.0.0", 5)
    assert found["largest_difference"] is None
    assert found["found"] == "version 1.0.0 answered instead of 2.0.0"


def test_a_service_has_time_to_follow_an_activation(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path))
    for version in ("2.0.0", "2.0.1"):
        served.install(make_bundle(tmp_path, version=version))
        assert served.document("iris")["version"] == version


def test_a_version_that_is_not_active_can_be_asked(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path), make_bundle(tmp_path, version="2.0.0"))
    assert served.document("iris", "--version", "1.0.0")["version"] == "1.0.0"
    assert served.document("iris")["version"] == "2.0.0"


def test_a_service_that_refuses_the_examples_is_wrong(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path), max_rows=2)
    found = served.document("iris", code=3)
    assert found["failures"] == 5
    assert "the service refuses the examples" in found["found"]


def test_no_service_ends_with_1(tmp_path, make_bundle):
    alone = Host(tmp_path / "alone")
    alone.install(make_bundle(tmp_path))
    result = alone.probe("iris", "--wait", "0")
    assert result.exit_code == 1
    assert "it does not answer" in result.stderr


def test_a_model_that_the_service_does_not_serve_ends_with_1(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path))
    believed = Host(tmp_path / "believed")
    believed.install(make_bundle(tmp_path, name="wine"))
    assert served.probe("wine", "--wait", "0", state=believed.store.state_dir).exit_code == 1


def test_an_unknown_model_version_or_none_active_ends_with_4(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path))
    served.store.install(make_bundle(tmp_path, name="wine"))
    for words, said in (
        (("iriss",), "no version of it is active"),
        (("iris", "--version", "9.9.9"), "it is not installed"),
        (("wine",), "appliance activate wine 1.0.0"),
    ):
        result = served.probe(*words)
        assert result.exit_code == 4, words
        assert said in result.stderr


@pytest.fixture
def tokens(tmp_path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# of this site\n\npredict {TOKEN}\n")
    file.chmod(0o640)
    return file


def test_the_token_comes_from_the_configured_file(tmp_path, host, make_bundle, tokens):
    served = host(make_bundle(tmp_path), tokens_file=str(tokens))
    result = served.probe("iris", APPLIANCE_HTTP_TOKENS_FILE=str(tokens))
    assert result.exit_code == 0, result.output
    assert TOKEN not in result.output


def test_without_a_token_that_the_service_takes_it_ends_with_1(tmp_path, host, make_bundle, tokens):
    served = host(make_bundle(tmp_path), tokens_file=str(tokens))
    result = served.probe("iris")
    assert result.exit_code == 1
    assert "no token was sent" in result.stderr
    absent = served.probe("iris", APPLIANCE_HTTP_TOKENS_FILE=str(tmp_path / "absent"))
    assert absent.exit_code == 1
    assert "read the tokens file" in absent.stderr


def test_damaged_examples_are_refused_before_anything_is_asked(tmp_path, host, make_bundle):
    served = host(make_bundle(tmp_path))
    (served.store.folder("iris", "1.0.0") / archive.EXAMPLES).write_bytes(b"no npz")
    result = served.probe("iris")
    assert result.exit_code == 3
    assert "its SHA-256 is not the one in manifest.json" in result.stderr


class Strange(http.server.BaseHTTPRequestHandler):
    """Another program on the port."""

    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_):
        pass


def test_another_program_on_the_port_ends_with_1(tmp_path, make_bundle):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        alone = Host(tmp_path / "alone")
        alone.install(make_bundle(tmp_path))
        alone.port = server.server_port
        result = alone.probe("iris", "--wait", "0")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert result.exit_code == 1
    assert "does not speak Open Inference" in result.stderr


def test_it_loads_neither_onnxruntime_nor_flask():
    code = (
        "import sys, appliance.cli.probe\n"
        "heavy = {'onnxruntime', 'flask', 'waitress', 'prometheus_client', 'cryptography'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
