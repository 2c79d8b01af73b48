"""What earlier versions wrote is read: a bundle and a state folder of each, kept as text beside this file.

The folder of 0.1.0: plant 1.0.0 (good), 1.1.0 (active, on probation), a held canary of 2.0.0 in its shadow step, three
predictions in the log. To go back is tested by `make upgrade-test OLD=COMMIT`, with that version's own program.
"""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.store import receipts
from tests.end_to_end.services import Service

FIXTURES = sorted(Path(__file__).parent.glob("state-*.json"))


def content(kept: str | dict[str, str]) -> bytes:
    return kept.encode() if isinstance(kept, str) else zlib.decompress(base64.b64decode(kept["zlib"]))


@pytest.fixture(params=FIXTURES, ids=[path.stem for path in FIXTURES])
def old(request, tmp_path) -> dict[str, Any]:
    """The document; its folder is in tmp_path/state, its bundle tmp_path/plant-1.0.0.bundle."""
    document = json.loads(request.param.read_text())
    for name, kept in document["state"].items():
        path = tmp_path / "state" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(kept))
    (tmp_path / "plant-1.0.0.bundle").write_bytes(content(document["bundle"]))
    return document


@pytest.fixture
def run(tmp_path):
    def invoke(*arguments: str) -> str:
        done = CliRunner().invoke(command, list(arguments), env={"APPLIANCE_STATE_DIR": str(tmp_path / "state")})
        assert done.exit_code == 0, done.output
        return done.stdout

    return invoke


def rows_of(run) -> int:
    """Return how many predictions a sound log holds."""
    told = json.loads(run("log", "verify", "plant", "--json"))
    assert (told["sound"], told["problems"]) == (True, [])
    return run("log", "tail", "plant", "-n", "100").count('"listener":')


def test_a_bundle_is_read_tried_and_installed(old, run, tmp_path):
    bundle = str(tmp_path / "plant-1.0.0.bundle")
    assert "self-test passed" in run("verify", bundle, "--self-test")
    assert run("install", bundle).startswith("plant 1.0.0 was installed already")


def test_models_experiment_receipts_and_log_are_read(old, run, tmp_path):
    (model,) = json.loads(run("models", "--json"))["models"]
    assert (model["versions"], model["active"]) == (["1.0.0", "1.1.0", "2.0.0"], "1.1.0")
    assert (model["previous"], model["previous_state"], model["state"]) == ("1.0.0", "good", "probation")
    told = json.loads(run("experiment", "plant", "--json"))
    assert (told["running"], told["kind"], told["base"]) == (True, "canary", "1.1.0")
    assert "2.0.0" in [arm["version"] for arm in told["arms"]]
    lines = old["state"]["receipts/2026-12.jsonl"].splitlines()
    assert len(receipts.read(tmp_path / "state/receipts")) == len(lines) == 7
    assert rows_of(run) == 3
    assert "f3fb441eb440" in run("log", "tail", "plant")


def test_it_serves_and_goes_on_where_it_was(old, run, tmp_path):
    service = Service(tmp_path / "state", APPLIANCE_LOG_PREDICTIONS_ENABLED="true")
    try:
        assert service.predict([1.0, 2.0])["version"] == "1.1.0"
    finally:
        assert service.stop() == 0
    assert rows_of(run) == 4
    run("abort", "plant")
    assert run("rollback", "plant").startswith("plant 1.0.0 is active, good")
    run("backup", str(tmp_path / "backup.tar"))
