"""The port in a firewall: check mode tells what a run then does. tests/heavy/fleet has the real ufw and firewalld."""

import json
import re
import sys

import pytest

pytestmark = pytest.mark.timeout(300)

UFW = """#!/bin/sh
case "$1" in
  show) echo 'Added user rules (see "ufw status" for running firewall):'; cat {rules}/ufw ;;
  allow) echo "ufw allow $2 $3 '$4'" >> {rules}/ufw; echo 'Rule added' ;;
esac
"""
FIREWALL_CMD = """#!/bin/sh
rules={rules}/now
[ "$1" != --permanent ] || {{ rules={rules}/permanent; shift; }}
case "$1" in
  --query-port=*) grep -qx "${{1#--query-port=}}" "$rules" && echo yes || {{ echo no; exit 1; }} ;;
  --add-port=*) echo "${{1#--add-port=}}" >> "$rules"; echo success ;;
esac
"""
"""What each answers to these words and with which exit code, as the real ones do."""


@pytest.fixture
def rules(tmp_path):
    """The folder of the rules of both firewalls; others have opened a port that begins alike."""
    for name, text in (("ufw", UFW), ("firewall-cmd", FIREWALL_CMD)):
        (tmp_path / name).write_text(text.format(rules=tmp_path / "rules"))
        (tmp_path / name).chmod(0o755)
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "ufw").write_text("ufw allow 18080/tcp\nufw allow 22/tcp\n")
    for name in ("now", "permanent"):
        (folder / name).write_text("18080/tcp\n")
    return folder


@pytest.fixture
def play(rules, run, tmp_path):
    """Return play(firewall, *words) -> (the output, which commands it ran or would run)."""

    def play(firewall: str, *words: str) -> tuple[str, list[str]]:
        role = {"name": "inference.appliance.appliance", "tasks_from": "firewall"}
        variables = {
            "appliance_firewall": firewall, "appliance_http_port": 8080, "appliance_cache": str(tmp_path),
            "ansible_python_interpreter": sys.executable,
        }  # fmt: skip
        book = [{
            "hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables,
            "environment": {"PATH": f"{tmp_path}:/usr/bin:/bin"},
            "tasks": [{"ansible.builtin.include_role": role}],
        }]  # fmt: skip
        (tmp_path / "book.json").write_text(json.dumps(book))
        done = run("ansible-playbook", "-i", "localhost,", tmp_path / "book.json", *words)
        return done.stdout + done.stderr, re.findall(r"^changed: \[localhost\] => \(item=(.*)\)", done.stdout, re.M)

    return play


def test_check_mode_tells_what_ufw_will_be_told_and_tells_it_nothing(play, rules):
    before = (rules / "ufw").read_text()
    output, would = play("ufw", "--check", "--diff")
    assert would == ["ufw allow 8080/tcp comment Inference Appliance"], output
    assert (rules / "ufw").read_text() == before
    output, done = play("ufw")
    assert done == would, output
    assert (rules / "ufw").read_text() == f"{before}ufw allow 8080/tcp comment 'Inference Appliance'\n"
    for words in ((), ("--check",)):
        output, more = play("ufw", *words)
        assert more == [], output


def test_check_mode_tells_both_places_of_firewalld(play, rules):
    output, would = play("firewalld", "--check", "--diff")
    assert would == ["firewall-cmd --add-port=8080/tcp", "firewall-cmd --permanent --add-port=8080/tcp"], output
    assert "8080/tcp" not in (rules / "now").read_text().split()
    output, done = play("firewalld")
    assert done == would, output
    assert [(rules / name).read_text().split()[1:] for name in ("now", "permanent")] == [["8080/tcp"]] * 2
    output, more = play("firewalld", "--check")
    assert more == [], output


def test_a_run_that_was_cut_off_between_the_two_places_is_finished(play, rules):
    (rules / "permanent").write_text("8080/tcp\n")
    output, done = play("firewalld")
    assert done == ["firewall-cmd --add-port=8080/tcp"], output
    assert "8080/tcp" in (rules / "now").read_text().split()


def test_a_firewall_that_does_not_answer_is_no_closed_port(play, tmp_path):
    (tmp_path / "firewall-cmd").write_text("#!/bin/sh\necho 'FirewallD is not running' >&2\nexit 252\n")
    output, done = play("firewalld", "--check")
    assert done == []
    assert "FirewallD is not running" in output
    assert "failed=1" in output
