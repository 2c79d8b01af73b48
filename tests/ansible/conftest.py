"""The controller's environment, made by its own make target where it is not there yet."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


def _make_collection(_: Path) -> None:
    made = subprocess.run(
        ["make", "-f", "ansible/ansible.mk", "collection"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture(scope="session")
def collection(once_a_run: Callable[..., Path]) -> Path:
    """The folder of the installed collection."""
    once_a_run("ansible-collection", _make_collection)
    return ROOT / ".cache/ansible/collections/ansible_collections/inference/appliance"


@pytest.fixture(scope="session")
def run(collection, tmp_path_factory) -> Run:
    """Return a function that runs one of Ansible's commands as a person in a clone would."""
    home = tmp_path_factory.mktemp("ansible-home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "APPLIANCE_"))}
    environment |= {
        "PATH": f"{ROOT}/.cache/ansible/venv/bin:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg"),
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_NOCOLOR": "1",
    }

    def run(*line: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)

    return run
