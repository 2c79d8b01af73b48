"""The brokers that we configure keep what comes while the appliance is away: the site's and the Ansible role's."""

import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml

from benchmarks.broker import SITE, keeping

MESSAGES = 3000
ROLE = Path(__file__).parents[2] / "ansible/roles/broker"


def role() -> str:
    """Return the role's mosquitto.conf with its defaults."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    return jinja2.Template((ROLE / "templates/appliance.conf.j2").read_text()).render(**defaults)


@pytest.fixture(params=["site", "role"])
def settings(request) -> list[str]:
    """What one of them keeps, to stand behind the test broker's own settings: the last one counts."""
    text = SITE.read_text() if request.param == "site" else role()
    return [line for line in keeping(text) if line.split()[0] not in ("persistence", "log_dest")]


def client(broker, program: str, *words: str, **more) -> subprocess.CompletedProcess:
    line = [f"mosquitto_{program}", "-p", str(broker.port), "-q", "1", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, **more)


def test_what_comes_while_a_client_is_away_is_kept_through_a_restart_of_the_broker(start_broker, settings):
    broker = start_broker("broker", *settings)
    session = ("-i", "appliance", "-c", "-t", "plant/#")
    assert client(broker, "sub", *session, "-E").returncode == 0  # subscribes and leaves
    sent = [f"reading {number}" for number in range(MESSAGES)]
    assert client(broker, "pub", "-t", "plant/north", "-l", input="\n".join(sent)).returncode == 0
    broker.stop()
    broker.start()
    got = client(broker, "sub", *session, "-C", str(MESSAGES), "-W", "30").stdout.splitlines()
    assert sorted(got) == sorted(sent)


def test_a_payload_beyond_what_the_appliance_reads_is_not_queued(start_broker, settings, tmp_path):
    broker = start_broker("broker", *settings)
    session = ("-i", "appliance", "-c", "-t", "plant/#")
    client(broker, "sub", *session, "-E")
    (tmp_path / "large").write_bytes(b"x" * 262_145)
    client(broker, "pub", "-t", "plant/north", "-f", str(tmp_path / "large"))
    client(broker, "pub", "-t", "plant/north", "-m", "small")
    assert client(broker, "sub", *session, "-C", "1", "-W", "30").stdout.splitlines() == ["small"]


def test_neither_saves_on_changes_and_both_hold_a_day_of_five_messages_a_second():
    for text in (SITE.read_text(), role()):
        found = dict(line.split(maxsplit=1) for line in keeping(text))
        assert "autosave_on_changes" not in found
        assert int(found["max_queued_messages"]) >= 5 * 86_400
        assert 1 <= int(found["autosave_interval"]) <= 300
        assert int(found["message_size_limit"]) == 262_144


def test_the_broker_of_the_site_may_take_the_memory_that_a_full_queue_needs():
    found = dict(line.split(maxsplit=1) for line in keeping(SITE.read_text()))
    needed = int(found["max_queued_messages"]) * 350 + int(found["max_queued_bytes"])
    compose = yaml.safe_load((SITE.parents[1] / "compose.yml").read_text())
    allowed = compose["services"]["broker"]["mem_limit"].partition(":-")[2].rstrip("m}")
    assert int(allowed) * 2**20 >= needed
