"""The units that score files every night: closed as the service, sound to systemd, their commands run."""

import datetime
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance.conftest import build_bundle
from tests.packaging.test_pull_units import settings

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "packaging" / "systemd"
HEADER = "sepal_length,sepal_width,petal_length,petal_width"


def test_scoring_is_as_closed_as_serving():
    service, scoring = settings("appliance.service"), settings("appliance-score@.service")
    begin = service.index(("ProtectSystem", "strict"))
    closed = service[begin : service.index(("SystemCallErrorNumber", "EPERM")) + 1]
    assert len(closed) > 25
    assert [setting for setting in closed if setting not in scoring] == []
    assert ("User", "appliance") in scoring


def test_systemd_finds_no_fault(tmp_path):
    program = tmp_path / "current" / "program" / "appliance"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("appliance-score@.service", "appliance-score@.timer"):
        (tmp_path / name).write_text((UNITS / name).read_text().replace("@PREFIX@", str(tmp_path)))

    def verify() -> subprocess.CompletedProcess[str]:
        named = [tmp_path / "appliance-score@line.service", tmp_path / "appliance-score@line.timer"]
        for path in named:
            shutil.copy(tmp_path / path.name.replace("@line", "@"), path)
        command = ["systemd-analyze", "verify", "--man=no", *map(str, named)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = verify()
    assert [line for line in done.stderr.splitlines() if "appliance" in line] == []
    unit = tmp_path / "appliance-score@.service"
    unit.write_text(unit.read_text().replace("Restart=on-abnormal", "Restart=perhaps"))
    assert "perhaps" in verify().stderr


def command(key: str, name: str) -> list[str]:
    """Return a command of the unit as systemd runs it: the shell, its program, and the name that it is given."""
    text = re.sub(r"\\\n\s*", " ", (UNITS / "appliance-score@.service").read_text())
    (line,) = re.findall(rf"^{key}=-?/bin/sh -c '(.*)' +\S+$", text, re.MULTILINE)
    script = line.replace("$$", "$").replace("%%", "%").replace("\\\\", "\\")
    return ["/bin/sh", "-c", script, name]


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """What the unit's file and systemd set for a job, with a state folder that has iris 1.0.0 active."""
    (tmp_path / "run").mkdir()
    bundle = tmp_path / "iris.bundle"
    bundle.write_bytes(build_bundle())
    plain = {name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")}
    found = {
        **plain,
        "PYTHONPATH": str(ROOT),
        "APPLIANCE_STATE_DIR": str(tmp_path / "state"),
        "RUNTIME_DIRECTORY": str(tmp_path / "run"),
        "MODEL": "iris",
        "INPUT": f"{tmp_path}/rows-%F.csv",
        "OUTPUT": f"{tmp_path}/scored-%F.csv",
        "OPTIONS": "--provenance --keep none",
    }
    program = tmp_path / "appliance"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from appliance.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    for arguments in (["install", bundle], ["activate", "iris", "1.0.0"]):
        subprocess.run([program, *arguments], env=found, check=True, capture_output=True)
    return found


def run(tmp_path: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    started = command("ExecStart", str(tmp_path / "appliance"))
    return subprocess.run(started, env=environment, capture_output=True, text=True, check=False)


def test_a_job_scores_the_day_s_file_and_tells_the_journal(environment, tmp_path):
    today = datetime.date.today().isoformat()
    environment |= {"INPUT": environment["INPUT"].replace("%F", "%%-%F"), "OUTPUT": environment["OUTPUT"]}
    source = tmp_path / f"rows-%-{today}.csv"
    source.write_text(f"{HEADER}\n1,2,3,4\n5,6,7,8\n")
    done = run(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["version"], told["rows"]) == ("iris", "1.0.0", 2)
    lines = (tmp_path / f"scored-{today}.csv").read_text().splitlines()
    assert lines[0] == "prediction,model,version,id"
    assert len(lines) == 3


def test_a_job_without_its_file_fails_with_the_command_s_code(environment, tmp_path):
    done = run(tmp_path, environment)
    assert done.returncode == 4
    assert "rows-" in done.stderr


@pytest.fixture
def received() -> Iterator[tuple[str, list[bytes]]]:
    """A server's address, and the bodies that were sent to it."""
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/scored", bodies
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("told", ['{"rows": 2, "name": "a \\"b\\" $HOME `id`"}', None])
def test_others_are_told_where_it_is_configured_alone(environment, received, start_broker, tmp_path, told):
    address, bodies = received
    environment |= {"SERVICE_RESULT": "success", "EXIT_STATUS": "0"}
    if told:
        (tmp_path / "run" / "told.json").write_text(told)
    after = command("ExecStopPost", "line-3")
    silent = subprocess.run(after, env=environment, capture_output=True, text=True)
    assert (silent.stdout, silent.stderr, bodies) == ("", "", [])
    broker = start_broker("broker")
    port = str(broker.port)
    where = {"WEBHOOK": address, "MQTT_HOST": broker.host, "MQTT_PORT": port, "MQTT_TOPIC": "plant/scored"}
    listening = ["mosquitto_sub", "-h", broker.host, "-p", port, "-t", "plant/#", "-C", "1", "-W", "60", "-q",
                 "1", "-i", "listener", "-c"]  # fmt: skip
    subprocess.run([*listening, "-E"], check=True)  # subscribed from now on, whoever listens
    done = subprocess.run(after, env={**environment, **where}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = {"job": "line-3", "result": "success", "exit_status": "0", "told": told and json.loads(told)}
    assert [json.loads(body) for body in bodies] == [expected]
    message = subprocess.run(listening, capture_output=True, check=True).stdout
    assert json.loads(message) == expected
