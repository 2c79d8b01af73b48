"""The workflows hold no more rights than they need, run what a laptop can run, and the lint finds nothing."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
ZIZMOR = Path(sys.executable).with_name("zizmor")
# What a step may run beside make targets and playbooks: what a runner needs before make, and GitHub's own command.
PREPARATION = ("apt-get update ", "git config --global --add safe.directory ", "gh release create ", ".ci/run")
SHELL = ("umask ", "trap ", "printenv ")


def workflow(path: Path) -> dict[str, Any]:
    # YAML 1.1, which PyYAML reads, takes `on` for a truth value.
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{path.name}: {name}", job) for path in FILES for name, job in workflow(path)["jobs"].items()]


def steps() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return (place, job, step) of every step."""
    return [(f"{where}: step {number}", job, step) for where, job in jobs() for number, step in enumerate(job["steps"])]


def expanded(text: str, job: dict[str, Any], step: dict[str, Any]) -> Iterator[str]:
    """Yield a command with each value that the matrix gives to the variables in it."""
    matrix = job.get("strategy", {}).get("matrix", {})
    rows = matrix.get("include") or [
        dict(zip(matrix, values, strict=True)) for values in product(*(matrix[key] for key in matrix))
    ]
    variables = {**job.get("env", {}), **step.get("env", {})}
    for row in rows or [{}]:
        line = text
        for name, value in variables.items():
            found = re.fullmatch(r"\$\{\{ matrix\.(\w+) \}\}", str(value))
            if found:
                line = line.replace(f"${name}", row[found[1]])
        yield line


def targets() -> set[str]:
    """Return every target that make knows."""
    makefile = (ROOT / "Makefile").read_text()
    (patterns,) = re.findall(r"^include \$\(wildcard (.*)\)$", makefile, re.MULTILINE)
    texts = [makefile, *(path.read_text() for pattern in patterns.split() for path in ROOT.glob(pattern))]
    lines = [line for text in texts for line in re.findall(r"^\.PHONY: ((?:.|\\\n)*?)$", text, re.MULTILINE)]
    return {name for line in lines for name in line.replace("\\\n", " ").split()}


def test_the_five_workflows_are_there():
    assert [path.stem for path in FILES] == ["convert", "package", "release", "rollout", "test"]


def test_zizmor_finds_nothing_without_asking_the_network():
    done = subprocess.run(
        [ZIZMOR, "--offline", "--pedantic", "--no-progress", FOLDER], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_would_find_what_must_not_be(tmp_path):
    text = (FOLDER / "test.yml").read_text()
    for right, wrong in (
        ("persist-credentials: false", "fetch-depth: 1"),
        ("make sources-test", 'echo "${{ github.event.pull_request.title }}"'),
        ("permissions: {}", "permissions: write-all"),
    ):
        assert right in text
        (tmp_path / "wrong.yml").write_text(text.replace(right, wrong))
        done = subprocess.run(
            [ZIZMOR, "--offline", "--no-progress", tmp_path], capture_output=True, text=True, check=False
        )
        assert done.returncode != 0, wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_begins_without_any_right(path):
    assert workflow(path)["permissions"] == {}


@pytest.mark.parametrize(("where", "job"), jobs(), ids=[where for where, _ in jobs()])
def test_a_job_says_its_rights_and_its_end(where, job):
    assert job["permissions"]
    assert job["timeout-minutes"] > 0
    writes = {right for right, level in job["permissions"].items() if level == "write"}
    assert not writes or where == "release.yml: publish" or (where == "release.yml: pypi" and writes == {"id-token"})
    assert not writes or job["environment"] == "release"


@pytest.mark.parametrize(("where", "step"), [(where, step) for where, _, step in steps() if "uses" in step])
def test_an_action_is_pinned_by_its_commit_and_keeps_no_credentials(where, step):
    assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]), where
    if "actions/checkout" in step["uses"]:
        assert step["with"]["persist-credentials"] is False


def test_a_pin_says_its_version_and_each_action_has_one_pin():
    pins: dict[str, set[str]] = {}
    for path in FILES:
        for line in path.read_text().splitlines():
            if "uses: actions/" in line:
                found = re.search(r"uses: (actions/[a-z-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)$", line)
                assert found, line
                pins.setdefault(found[1], set()).add(found[2])
    assert pins
    assert all(len(versions) == 1 for versions in pins.values()), pins


@pytest.mark.parametrize(("where", "job", "step"), [one for one in steps() if "run" in one[2]])
def test_a_step_runs_what_a_laptop_can_run(where, job, step):
    assert "${{" not in step["run"], "a value becomes part of a program"
    for line in filter(None, map(str.strip, step["run"].splitlines())):
        if line.startswith(PREPARATION) or line.startswith(SHELL):
            continue
        made = re.search(
            r"(?:^|^sudo --preserve-env=ARCH |\$\()make (?:--\S+ (?:\.\S+ )?)*(.*?)\)?\"?(?: >> .*)?$", line
        )
        if made:
            for called in expanded(made[1], job, step):
                named = {word.strip('"') for word in called.split() if "=" not in word}
                assert named, where
                assert named <= targets(), f"{where}: {named - targets()}"
        else:
            played = re.match(r'\.cache/ansible/venv/bin/ansible-playbook -i "\$INVENTORY" (\S+)', line)
            assert played, f"{where}: {line}"
            assert (ROOT / played[1]).is_file()


def test_the_rollout_s_waves_wait_for_the_canary_and_an_approval():
    found = workflow(FOLDER / "rollout.yml")["jobs"]
    assert found["waves"]["needs"] == "canary"
    assert (found["canary"]["environment"], found["waves"]["environment"]) == ("canary", "fleet")
    assert any("appliance_only_canary=true" in step.get("run", "") for step in found["canary"]["steps"])
    assert not any("appliance_only_canary" in step.get("run", "") for step in found["waves"]["steps"])
    assert "appliance_only_canary" in (ROOT / "ansible/playbooks/rollout.yml").read_text()
    assert all("self-hosted" in job["runs-on"] for job in found.values())


def test_the_key_that_signs_is_where_no_pickle_is_loaded():
    found = workflow(FOLDER / "convert.yml")["jobs"]
    assert "signing-key" not in str(found["convert"])
    assert "signing-key" in str(found["sign"])
    assert "make --directory .appliance bundle" not in str(found["sign"])
