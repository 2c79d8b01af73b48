"""What experiments and probations need comes with the first one of a process, and nothing is lost until then."""

import subprocess
import sys
import threading

from appliance.config import ProbationConfig
from appliance.experiments import parts, probation_record
from appliance.inference.selftest import self_test
from appliance.store import activation
from tests.conftest import wait_for

LATER = {"judge", "shadow", "counting", "comparison", "verdict", "evidence", "probation", "probation_watch", "quality"}


def named(name: str) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == name]


def begun(host) -> tuple[bool, bool]:
    """Return whether the shadow is made, and the judge."""
    return host.parts._arms is not None, host.parts._judging is not None


def test_a_service_without_experiment_imports_nothing_that_proves():
    script = "import sys, appliance.service; print(*(name for name in sys.modules if 'appliance.experiments' in name))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = {name.rpartition(".")[2] for name in done.stdout.split()}
    assert "parts" in found
    assert not found & LATER


def test_without_experiment_and_probation_nothing_is_begun_and_what_serves_is_counted(host, monkeypatch):
    monkeypatch.setattr(parts, "COUNT_SECONDS", 0.0)
    before = len(named("shadow")), len(named("judge"))
    host.parts.look(host.stop)
    for _ in range(7):
        host.ask()
    host.parts.look(host.stop)
    assert begun(host) == (False, False)
    assert (len(named("shadow")), len(named("judge"))) == before
    seen = probation_record.read(host.store.state_dir, "iris")
    assert (seen.now.version, seen.now.requests) == ("1.0.0", 7)


def test_the_judge_begins_with_the_first_probation_and_knows_the_version_before(host, monkeypatch):
    monkeypatch.setattr(parts, "COUNT_SECONDS", 0.0)
    for _ in range(200):
        host.ask()
    host.parts.look(host.stop)
    activation.activate(host.store, "iris", "2.0.0", self_test)
    host.parts.look(host.stop)
    host.models.refresh()
    judge = host.parts._judging
    wait_for(lambda: host.parts._nan.watched == {"iris": "2.0.0"}, "the judge's look")
    host.parts.look(host.stop)
    assert host.parts._judging is judge
    for _ in range(300):
        host.ask()
    wait_for(lambda: activation.read(host.store, "iris").state == "good", "the end of the probation")
    seen = wait_for(  # it is written at the end of the same look
        lambda: (one := probation_record.read(host.store.state_dir, "iris")) and one.now.requests == 300 and one,
        "the counts on disk",
    )
    assert (seen.before.version, seen.before.requests) == ("1.0.0", 200)
    assert begun(host)[0] is False


def test_without_probation_no_judge_begins(make_host):
    host = make_host(probation=ProbationConfig(enabled=False))
    activation.activate(host.store, "iris", "2.0.0", self_test)
    host.models.refresh()
    host.parts.look(host.stop)
    assert begun(host) == (False, False)


def test_shadow_and_judge_begin_with_the_first_experiment_that_is_followed(host):
    host.begin("shadow")
    host.parts.look(host.stop)
    assert begun(host) == (True, True)


def test_a_further_process_begins_its_shadow_and_no_judge(make_host):
    make_host().begin("shadow")
    second = make_host(slot=1)
    second.parts.look(second.stop)
    assert begun(second) == (True, False)


def test_a_record_that_cannot_be_read_is_told_once_and_the_thread_goes_on(host, caplog):
    record = host.store.state_dir / "models" / "iris" / "activation.json"
    content = record.read_bytes()
    record.write_bytes(b"torn")
    for _ in range(2):
        host.parts.look(host.stop)
    assert [one.message for one in caplog.records].count("model cannot be judged") == 1
    record.write_bytes(content)
    host.parts.look(host.stop)
    host.parts._sums = lambda: 1 / 0
    host.parts._counted = float("-inf")
    host.parts.look(host.stop)
    assert "experiments and probations cannot be looked at" in caplog.text
