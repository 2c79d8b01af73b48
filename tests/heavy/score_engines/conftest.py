"""What the tests of the engines share: their environment, a table of the iris model's rows, and how to score it."""

import json
import os
import random
import secrets
import subprocess
from pathlib import Path

import pytest

from tests.appliance.conftest import FEATURES, build_bundle

ENVIRONMENT = Path(os.environ.get("SCORE_ENGINES", ".cache/score-engines")).absolute()


@pytest.fixture(scope="session")
def program() -> Path:
    """The appliance in the environment that has the engines."""
    path = ENVIRONMENT / "bin" / "appliance"
    assert path.exists(), f"make score-engines-test makes {ENVIRONMENT}"
    return path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier whose labels are texts."""
    path = tmp_path_factory.mktemp("bundle") / "iris-1.0.0.bundle"
    path.write_bytes(build_bundle(kind="labels"))
    return path


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder without any model."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def environment(program: Path, state: Path) -> dict[str, str]:
    """The environment of what is started: the engines' Python first, a token for Ray, and a home of its own."""
    return {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(state.parent),
        "APPLIANCE_STATE_DIR": str(state),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def write_rows(path: Path, rows: int, bad: int = 0) -> None:
    """Write so many rows, no two alike; each `bad`-th one has a text for a number."""
    draw = random.Random(16)
    with path.open("w") as file:
        file.write(f"plant,{','.join(FEATURES)}\n")
        for row in range(rows):
            cells = [f"{draw.uniform(0, 8):.4f}" for _ in FEATURES]
            if bad and row % bad == bad - 1:
                cells[1] = "unknown"
            file.write(f"p{row},{','.join(cells)}\n")


def score(program: Path, environment: dict[str, str], *arguments: object) -> dict:
    """Score, and return what the command tells."""
    command = [str(program), "score", *map(str, arguments), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
