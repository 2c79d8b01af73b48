"""Trust is asked when a version goes live: by every way there, by today's keys, over the files on disk."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from appliance.bundle import archive, keys, signature
from appliance.cli import appliance as command
from appliance.config import Config, HttpConfig, ModelsConfig, StoreConfig
from appliance.errors import BundleRefused, Misuse
from appliance.inference.selftest import self_test
from appliance.repository import ModelRepository
from appliance.rest.server.listener import bind
from appliance.service import Service
from appliance.store import activation
from appliance.store.versions import Store

OLD, NEW = keys.generate_key(), keys.generate_key()


class Host:
    """A state folder, a file of trusted keys, and the commands over both."""

    def __init__(self, folder: Path, bundles: dict[str, bytes]) -> None:
        self.folder = folder
        self.pub = folder / "trusted.pub"
        self.pub.write_bytes(OLD[1])
        self.anybody = Store(folder / "state")
        self.store = Store(folder / "state", trusted_keys=[str(self.pub)])
        self._bundles = bundles

    def install(self, version: str, key: tuple[bytes, bytes] | None, *, live: bool = False) -> Path:
        """Install a version as it was before anybody asked for signatures; activate it where `live`."""
        bundle = archive.read(self._bundles[version])
        content = archive.with_signature(bundle, signature.sign(bundle.members, key[0])) if key else None
        path = self.folder / f"{version}.bundle"
        path.write_bytes(content or self._bundles[version])
        folder = self.anybody.install(path).folder
        if live:
            activation.activate(self.anybody, "iris", version, self_test)
        return folder

    def run(self, *arguments: str, **settings: str) -> Any:
        environment = {"STATE_DIR": str(self.folder / "state"), "STORE_TRUSTED_KEYS": str(self.pub), **settings}
        return CliRunner().invoke(
            command, arguments, env={f"APPLIANCE_{key}": value for key, value in environment.items()}
        )

    def models(self, **rest: Any) -> ModelRepository:
        models = ModelRepository(self.store, **rest)
        models.refresh()
        return models


@pytest.fixture
def host(tmp_path, bundle_bytes) -> Host:
    return Host(tmp_path, {version: bundle_bytes(version=version) for version in ("1.0.0", "2.0.0", "3.0.0")})


def rewrite(folder: Path) -> None:
    """Change a version on disk so that its manifest still fits."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["provenance"]["source"] = "elsewhere"
    (folder / "manifest.json").write_text(json.dumps(manifest))


def unsign(folder: Path) -> None:
    (folder / "model.sig").unlink()


def damage(folder: Path) -> None:
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))


def swap(folder: Path) -> None:
    """Put another version's files in the place of this one's, all of them signed."""
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"version": "0.9.0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    members = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "model.sig"}
    (folder / "model.sig").write_bytes(signature.sign(members, OLD[0]))


REASONS = {
    "unsigned": (None, lambda folder: None, "unsigned"),
    "another key": (NEW, lambda folder: None, "not signed by the trusted key"),
    "signature taken away": (OLD, unsign, "unsigned"),
    "manifest changed": (OLD, rewrite, "is not as it was when it was signed"),
    "member changed": (OLD, damage, "SHA-256"),
    "another version's files": (OLD, swap, "its folder holds iris 0.9.0"),
}


@pytest.mark.parametrize("why", REASONS)
def test_activate_refuses_what_no_key_of_today_vouches_for(host, why):
    key, change, reason = REASONS[why]
    host.install("1.0.0", OLD, live=True)
    change(host.install("2.0.0", key))
    done = host.run("activate", "iris", "2.0.0")
    assert (done.exit_code, reason in done.output) == (3, True), done.output
    assert activation.read(host.store, "iris").active == "1.0.0"
    receipt = host.store.receipts()[-1]
    assert (receipt.what, receipt.version, receipt.outcome) == ("activate", "2.0.0", "refused")
    assert host.run("activate", "iris", "1.0.0").exit_code == 0


@pytest.mark.parametrize("why", REASONS)
def test_roll_back_refuses_it_too(host, why):
    key, change, reason = REASONS[why]
    folder = host.install("1.0.0", key, live=True)
    host.install("2.0.0", OLD, live=True)
    change(folder)
    done = host.run("rollback", "iris")
    assert (done.exit_code, reason in done.output) == (3, True), done.output
    assert activation.read(host.store, "iris").active == "2.0.0"


@pytest.mark.parametrize("why", REASONS)
def test_follower_and_start_refuse_it_and_the_old_version_keeps_serving(host, why):
    key, change, reason = REASONS[why]
    host.install("1.0.0", OLD, live=True)
    models = host.models()
    change(host.install("2.0.0", key, live=True))
    models.refresh()
    (served,) = models.served()
    assert (served.loaded.version, served.wanted, reason in str(served.problem)) == ("1.0.0", "2.0.0", True)
    (fresh,) = host.models().served()
    assert (fresh.loaded, reason in str(fresh.problem)) == (None, True)
    with pytest.raises(BundleRefused, match=reason):
        models.get("iris", "2.0.0")


def test_key_taken_out_leaves_the_serving_version_and_says_so_until_it_is_back(host):
    host.install("1.0.0", OLD, live=True)
    host.install("2.0.0", OLD)
    models = host.models()
    assert models.get("iris", "2.0.0").version == "2.0.0"
    host.pub.write_bytes(NEW[1])
    models.refresh()
    (served,) = models.served()
    assert (served.loaded.version, served.wanted) == ("1.0.0", "1.0.0")
    assert "not signed by the trusted key" in str(served.problem)
    with pytest.raises(BundleRefused):
        models.get("iris", "2.0.0")  # it was named by a request, and is not active
    assert "not signed by the trusted key" in host.run("status").output
    host.pub.write_bytes(OLD[1] + NEW[1])
    models.refresh()
    assert models.served()[0].problem is None
    host.pub.unlink()
    models.refresh()
    assert "No such file" in str(models.served()[0].problem)


def test_key_taken_out_stops_the_serving_version_where_that_is_wanted(host):
    host.install("1.0.0", OLD, live=True)
    models = host.models(revoke="stop")
    assert models.get("iris").version == "1.0.0"
    host.pub.write_bytes(NEW[1])
    models.refresh()
    (served,) = models.served()
    assert (served.loaded, "not signed" in str(served.problem)) == (None, True)
    host.pub.write_bytes(OLD[1])
    models.refresh()
    assert models.get("iris").version == "1.0.0"


def test_file_of_two_keys_is_read_whole_and_anything_beside_them_refuses_it(host):
    host.install("1.0.0", OLD)
    host.install("2.0.0", NEW)
    host.pub.write_bytes(NEW[1] + b"\n" + OLD[1])
    assert host.run("activate", "iris", "1.0.0").exit_code == 0
    assert host.run("activate", "iris", "2.0.0").exit_code == 0
    for beside in (b"# a comment\n", b"-----BEGIN PUBLIC KEY-----\n", OLD[0], b"\0"):
        host.pub.write_bytes(OLD[1] + beside)
        done = host.run("activate", "iris", "1.0.0")
        assert (done.exit_code, "cannot be used" in done.output) == (3, True), done.output
        with pytest.raises(Misuse):
            keys.load_public_keys(OLD[1] + beside)
    assert len(keys.load_public_keys(OLD[1] + NEW[1])) == 2


@pytest.fixture
def serve(host) -> Iterator[Callable[..., Callable[..., tuple[int, Any]]]]:
    """Return a function that starts a service over the host and gives ask(method, path, body) -> (status, JSON)."""
    running: list[tuple[Service, threading.Thread]] = []

    def start(**store: Any) -> Callable[..., tuple[int, Any]]:
        settings = {"state_dir": str(host.folder / "state"), "preload_dir": str(host.folder / "none"), **store}
        config = Config(
            http=HttpConfig(port=0),
            models=ModelsConfig(poll_seconds=0.05),
            store=StoreConfig(trusted_keys=(str(host.pub),), **settings),
        )
        listener = bind("127.0.0.1", 0)
        service = Service(config, listener)
        ready = threading.Event()
        thread = threading.Thread(target=service.run, args=(ready.set,))
        thread.start()
        running.append((service, thread))
        assert ready.wait(60)

        def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
            with closing(http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)) as connection:
                connection.request(method, path, json.dumps(body) if body is not None else None)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        return ask

    yield start
    for service, thread in running:
        service.stop()
        thread.join(60)


def test_every_way_over_http_refuses_it(host, serve):
    host.install("1.0.0", OLD, live=True)
    host.install("2.0.0", None)
    host.install("3.0.0", NEW)
    ask = serve()
    row = {"features": [1, 2, 3, 4]}
    for version, reason in (("2.0.0", "unsigned"), ("3.0.0", "not signed by the trusted key")):
        for path, body in (
            (f"/models/iris/versions/{version}/activate", None),
            ("/v2/repository/models/iris/load", {"parameters": {"version": version}}),
            (f"/models/iris/versions/{version}/predict", row),
        ):
            status, answer = ask("POST", path, body)
            assert (status, reason in json.dumps(answer)) == (409, True), (path, answer)
    assert ask("POST", "/predict", row)[1]["version"] == "1.0.0"


def test_health_tells_of_a_key_that_was_taken_out(host, serve, until):
    host.install("1.0.0", OLD, live=True)
    ask = serve()
    host.pub.write_bytes(NEW[1])
    until(lambda: "reason" in ask("GET", "/health/ready")[1]["models"]["iris"], "told")
    status, answer = ask("GET", "/health/ready")
    assert (status, answer["models"]["iris"]["version"]) == (200, "1.0.0")
    assert "not signed by the trusted key" in answer["models"]["iris"]["reason"]
    assert "not signed by the trusted key" in ask("GET", "/models/iris")[1]["problem"]


def test_health_is_red_where_a_key_that_was_taken_out_stops_its_version(host, serve, until):
    host.install("1.0.0", OLD, live=True)
    ask = serve(revoke="stop")
    host.pub.write_bytes(NEW[1])
    until(lambda: ask("GET", "/health/ready")[0] == 503, "stopped")
    assert "not signed by the trusted key" in ask("GET", "/health/ready")[1]["reasons"][0]
    assert ask("POST", "/predict", {"features": [1, 2, 3, 4]})[0] == 503
