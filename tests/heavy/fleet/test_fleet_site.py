"""site.yml: from bare hosts to serving ones, by both methods, and what check mode says of it."""

import http.client
import json
import re
import subprocess
from collections import Counter

import pytest
from hosts import (
    ADMIN_TOKEN,
    ANSIBLE,
    CONTAINER_HOSTS,
    FLOWER,
    HOSTS,
    PORT,
    TOKEN,
    active,
    address,
    bundle,
    engine,
    everywhere,
    fleet,
    host,
    probes,
    rows,
)

BINARY_HOSTS = tuple(name for name in HOSTS if name not in CONTAINER_HOSTS)
ONE, OTHER = BINARY_HOSTS[0], BINARY_HOSTS[-1]


def predict(name: str, token: str = TOKEN) -> tuple[int, dict]:
    """Ask a host from here, over the network."""
    connection = http.client.HTTPConnection(address(name), PORT, timeout=20)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("POST", "/predict", json.dumps({"features": list(FLOWER)}), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def changes(output: str) -> Counter[tuple[str, str]]:
    """Return {(task, host): how often} of the tasks that changed something, or would."""
    found: Counter[tuple[str, str]] = Counter()
    task = ""
    for line in output.splitlines():
        if named := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)\]", line):
            task = named[1]
        elif done := re.match(r"changed: \[(\w+)[\] ]", line):
            found[task, done[1]] += 1
    return found


def test_check_mode_on_bare_hosts_tells_of_changes_and_makes_none(sited):
    assert sited.check.code == 0, sited.check.output[-4000:]
    assert all(sited.check.changed()[name] > 0 for name in HOSTS)
    assert sited.left == dict.fromkeys(HOSTS, "")
    assert "+port = 8080" in sited.check.output
    # Of a folder that two tasks make it tells twice; that is all that it tells beside what is then done.
    untold = set(changes(sited.first.output)) - set(changes(sited.check.output))
    assert not untold


def test_bare_hosts_come_to_serve_by_both_methods(sited):
    assert sited.first.code == 0, sited.first.output[-4000:]
    for name, found in probes().items():
        status, answer = predict(name)
        assert (status, answer["prediction"], answer["version"]) == (200, ["virginica"], "1.0.0"), name
        assert predict(name, "")[0] == 401
        assert (found["code"], found["failures"], found["examples"]) == (0, 0, rows("1.0.0")), name
    for name in BINARY_HOSTS:
        assert host(name, "systemctl show -P User appliance").stdout.strip() == "appliance"
        assert host(name, "readlink /opt/appliance/current").stdout.strip() == "versions/0.1.0"
    for name in CONTAINER_HOSTS:
        running = host(name, f"{engine(name)} ps --format '{{{{.Image}}}} {{{{.Status}}}}'").stdout
        assert "appliance" in running
        assert "Up" in running
        # What it says is in the journal, and in no engine's log beside it.
        assert (
            host(name, f"{engine(name)} inspect appliance -f '{{{{.HostConfig.LogConfig.Type}}}}'").stdout == "none\n"
        )
        assert '"listening"' in host(name, "journalctl -u appliance -o cat").stdout


def test_hosts_come_back_serving_after_a_power_cut(serving):
    # Not those of the container method: their engine's images are in memory, see conftest.TMPFS.
    for name in {ONE, OTHER}:
        fleet("off", name)
        fleet("on", name)
        host(name, "for i in $(seq 60); do appliance status --ready && exit 0; sleep 1; done; exit 1")
        assert predict(name)[1]["version"] == "1.0.0"


def test_second_run_changes_nothing(sited):
    assert sited.second.code == 0, sited.second.output[-4000:]
    assert sited.second.changed() == dict.fromkeys(HOSTS, 0)


def test_tokens_from_a_vault_are_for_the_service_alone_and_in_no_log(serving, run, tmp_path):
    new = "fleet-test-new-token-0123456789"
    tokens = [{"scope": "predict", "token": new}, {"scope": "admin", "token": ADMIN_TOKEN}]
    vault, password = tmp_path / "vault.yml", tmp_path / "password"
    vault.write_text(json.dumps({"vault_appliance_tokens": tokens}))
    password.write_text("a word for the vault\n")
    secrets = ["--vault-password-file", str(password)]
    subprocess.run([ANSIBLE.with_name("ansible-vault"), "encrypt", *secrets, vault], check=True, capture_output=True)
    assert new not in vault.read_text()
    stated = {"appliance_tokens": "{{ vault_appliance_tokens }}", "appliance_hosts": ONE}
    play = run("site", stated, "--diff", "-vvv", "-e", f"@{vault}", *secrets)
    assert play.code == 0, play.output[-4000:]
    host(ONE, "sleep 2")  # the service looks once a second
    assert predict(ONE, new)[0] == 200
    assert predict(ONE)[0] == 401
    assert play.changed()[ONE] > 0
    back = run("site", {"appliance_hosts": ONE}, "--diff", "-vvv")
    assert back.code == 0, back.output[-4000:]
    for output in (play.output, back.output):
        assert not [token for token in (TOKEN, new, ADMIN_TOKEN) if token in output]
    modes = everywhere("stat -c '%a %U:%G' /etc/appliance/tokens", BINARY_HOSTS)
    assert modes == dict.fromkeys(BINARY_HOSTS, "640 root:appliance\n")


def test_check_mode_tells_exactly_what_the_run_then_does(serving, run):
    wanted = {"appliance_config": {"http": {"max_rows": 5000}}, "bundle_models": [bundle("1.1.0")]}
    checked = run("site", wanted, "--check", "--diff")
    assert checked.code == 0, checked.output[-4000:]
    assert set(active().values()) == {"1.0.0"}
    assert set(everywhere("grep -c max_rows /etc/appliance/appliance.toml || true").values()) == {"0\n"}
    assert "+max_rows = 5000" in checked.output
    done = run("site", wanted, "--diff")
    assert done.code == 0, done.output[-4000:]
    assert set(active().values()) == {"1.1.0"}
    assert changes(checked.output) == changes(done.output)
    back = run("site")
    assert (back.code, set(active().values())) == (0, {"1.0.0"})


def test_what_was_changed_by_hand_is_put_right_there_alone(serving, run):
    host(OTHER, "echo '# by hand' >> /etc/appliance/appliance.toml")
    play = run("site")
    assert play.code == 0, play.output[-4000:]
    assert {name for name, count in play.changed().items() if count} == {OTHER}
    assert host(OTHER, "grep -c 'by hand' /etc/appliance/appliance.toml", check=False).stdout == "0\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"appliance_method": "rpm"},
        {"appliance_http_port": "eighty"},
        {"appliance_tokens": "predict 0123456789abcdef"},
        {"bundle_models": [{"name": "iris", "version": "1.1.0"}]},
        {"bundle_models": [{"name": "iris", "version": "1.1.0", "file": "/x", "sha": 1}]},
    ],
    ids=["method", "port", "tokens", "no file", "unknown key"],
)
def test_variables_of_the_wrong_kind_are_refused_before_anything_changes(serving, run, wrong):
    play = run("site", {**wrong, "appliance_hosts": ONE})
    assert play.code == 2
    assert "Validation of arguments failed" in play.output
    assert play.changed().get(ONE, 0) == 0
    assert predict(ONE)[1]["version"] == "1.0.0"


def test_setting_that_the_program_does_not_know_is_not_written(serving, run):
    play = run("site", {"appliance_config": {"http": {"prot": 80}}, "appliance_hosts": ONE})
    assert play.code == 2
    assert "prot" in play.output
    assert host(ONE, "grep -c prot /etc/appliance/appliance.toml", check=False).stdout == "0\n"
    assert predict(ONE)[0] == 200
