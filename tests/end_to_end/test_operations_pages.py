"""What the pages for operators show, run as it stands there: HTTPS, log rotation, backup while it serves."""

import json
import os
import re
import shutil
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.end_to_end.services import APPLIANCE, Service, done, run, write_bundle

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
LOGROTATE = shutil.which("logrotate") or "/usr/sbin/logrotate"


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language, as they would be typed."""
    text = (PAGES / page).read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


@pytest.fixture
def state(tmp_path) -> Path:
    """A state folder in which plant 1.0.0 is active."""
    folder = tmp_path / "state"
    done(folder, "install", str(write_bundle(tmp_path, "1.0.0")))
    done(folder, "activate", "plant", "1.0.0")
    return folder


def until(condition, what: str) -> None:
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_the_https_page_works_as_it_stands(tmp_path, state, monkeypatch):
    authority, certificate, ask = blocks("https.md", "sh")
    for script in (authority, certificate):
        subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    port = str(free_port())
    (tmp_path / "tokens").write_text("predict secret-of-the-test-0123456789\n")
    (tmp_path / "tokens").chmod(0o600)
    (toml,) = blocks("https.md", "toml")
    config = tmp_path / "appliance.toml"
    for shown, here in (("/etc/appliance", str(tmp_path)), ("8443", port), ("0.0.0.0", "127.0.0.1")):
        toml = toml.replace(shown, here)
    config.write_text(toml)
    service = Service(state, at=port, APPLIANCE_CONFIG=str(config))
    try:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        service.port  # noqa: B018 - waits until it listens
        token = {"Authorization": "Bearer secret-of-the-test-0123456789"}
        request = urllib.request.Request(f"https://localhost:{port}/models", headers=token)
        with urllib.request.urlopen(request, context=context, timeout=60) as answer:
            assert json.load(answer)["models"][0]["active"] == "1.0.0"
        assert ask.startswith("curl --cacert ca.crt")
        assert "https://localhost:8443/models" in ask
    finally:
        service.stop()


def test_logrotate_with_the_config_of_the_page_loses_no_line_that_comes_after(tmp_path, state):
    """Also what `>>` is for: after the truncation the next line begins the file."""
    (rotation,) = blocks("logs.md", "text")
    log = tmp_path / "appliance.log"
    config = tmp_path / "logrotate.conf"
    config.write_text(rotation.replace("/var/log/appliance/*.log", str(log)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
    line = f"exec {APPLIANCE} serve --port 0 --state-dir {state} 2>> {log}"
    service = subprocess.Popen(["sh", "-c", line], env=environment)
    try:
        until(lambda: log.exists() and "listening" in log.read_text(), "it listens")
        before = log.read_text()
        rotate = [LOGROTATE, "--force", "--state", str(tmp_path / "status"), str(config)]
        subprocess.run(rotate, check=True, capture_output=True)
        assert (tmp_path / "appliance.log.1").read_text().startswith(before)
        service.terminate()
        service.wait(60)
    finally:
        service.kill()
        service.wait(60)
    after = log.read_bytes()
    assert after
    assert b"\0" not in after
    assert [json.loads(one)["message"] for one in after.splitlines()][-1] == "stopped"


def test_a_backup_while_it_serves_is_restored_elsewhere_and_refused_under_a_service(tmp_path, state):
    service = Service(state)
    try:
        service.port  # noqa: B018 - waits until it listens
        done(state, "backup", str(tmp_path / "state.tar"))
        refused = run(state, "restore", str(tmp_path / "state.tar"), "--replace")
        assert (refused.returncode, "stop it first" in refused.stderr) == (3, True), refused.stderr
    finally:
        service.stop()
    done(tmp_path / "other", "restore", str(tmp_path / "state.tar"))
    told = run(tmp_path / "other", "history", "--json").stdout
    assert [one["what"] for one in json.loads(told)["receipts"]] == ["install", "activate"]
