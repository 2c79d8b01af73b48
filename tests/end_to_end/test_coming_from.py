"""The commands of two pages, run as they stand there: coming from other servers, and from a pickle to a rollout."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import joblib
import pytest
import yaml

from convert.cli import convert
from tests.appliance.rest.plant import renamed
from tests.appliance.rest.test_http_docs import near
from tests.conftest import IRIS_COMMANDS, free_port, wait_for
from tests.end_to_end.services import Service

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to"
ROW = [6.3, 3.3, 6.0, 2.5]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)


def shown(page: str) -> list[tuple[str, list[str]]]:
    """Return each command that has a `$`, with the lines that the page shows below it."""
    parts = re.split(r"^\$ ", "".join(blocks(page, "console")), flags=re.MULTILINE)[1:]
    return [(command, rest) for command, *rest in (part.splitlines() for part in parts)]


class Reader:
    """Somebody who types what a page shows, one line after another, in a folder of their own."""

    def __init__(self, folder: Path, iris: Path) -> None:
        self.folder, self.iris, self.port = folder, iris, free_port()
        self.service: Service | None = None
        kept = {name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        self.environment = kept | {"PATH": path, "PWD": str(folder), "APPLIANCE_HTTP_PORT": str(self.port)}

    def read(self, page: str) -> list[str]:
        """Run each command of a page, and hold what it prints against what the page shows."""
        done = []
        for command, lines in shown(page):
            printed = self.type(command.replace("/srv/iris", str(self.folder)))
            for line in lines:
                if line.startswith("{"):
                    assert near(json.loads(line)) == json.loads(printed), command
                else:
                    assert line in printed.splitlines(), f"{command}: {printed}"
            done.append(command)
        return done

    def type(self, command: str) -> str:
        words = shlex.split(command)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = value.replace("$PWD", str(self.folder))
            return ""
        if command == "appliance serve":
            settings = {name: value for name, value in self.environment.items() if name.startswith("APPLIANCE_")}
            self.service = Service(Path(self.state), at=str(self.port), **settings)
            assert self.service.port == self.port
            return ""
        if command.replace("1.1.0", "1.0.0") in IRIS_COMMANDS:
            return self.made_before(words)
        here = command.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}").replace("curl ", "curl --silent --fail ", 1)
        ran = subprocess.run(
            ["sh", "-c", here], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=100
        )
        assert ran.returncode == 0, f"{command}: {ran.stdout} {ran.stderr}"
        return ran.stdout + ran.stderr

    def made_before(self, words: list[str]) -> str:
        """Take what the same command made for all tests of this run."""
        if words[0] == "python":
            for name in ("model.joblib", "sample.csv"):
                shutil.copy(self.iris.parent / name, self.folder)
            return "accuracy on 38 rows never seen: 1.000\nwrote model.joblib and sample.csv\n"
        renamed(self.iris, self.folder, "iris", words[words.index("--version") + 1])
        return ""

    @property
    def state(self) -> str:
        return self.environment.get("APPLIANCE_STATE_DIR", str(self.folder / "state"))


@pytest.fixture
def reader(tmp_path, iris_bundle):
    one = Reader(tmp_path, iris_bundle)
    yield one
    if one.service:
        assert one.service.stop() == 0


def test_each_step_from_another_server_works_as_it_stands(reader, iris_bundle):
    done = reader.read("coming-from.md")
    assert [command for command in IRIS_COMMANDS if command in done] == [IRIS_COMMANDS[1]]
    assert sum(command.startswith("curl ") for command in done) == 5


def test_the_flask_script_of_the_page_gives_the_prediction_that_the_page_shows(iris_bundle, monkeypatch):
    (script,) = blocks("coming-from.md", "python")
    monkeypatch.chdir(iris_bundle.parent)
    names: dict = {"__name__": "app", "joblib": joblib}
    exec(script, names)
    before = names["app"].test_client().post("/predict", json={"features": ROW}).json
    (after,) = [lines[0] for command, lines in shown("coming-from.md") if "/predict " in command]
    assert before["prediction"] == json.loads(after)["prediction"]


def test_the_line_with_a_registry_has_options_that_convert_takes():
    (line,) = blocks("coming-from.md", "sh")
    program, command, *words = shlex.split(line)
    assert (program, command) == ("appliance", convert.name)
    given = click.Context(convert)
    convert.parse_args(given, list(words))
    assert given.params["name"] == "iris"
    assert words[0].startswith("models:/")
    assert words[0].startswith(words[words.index("--trust") + 1])


def test_a_pickle_comes_to_a_rollout_and_back_as_the_page_says(reader):
    (toml,) = blocks("from-pickle-to-rollout.md", "toml")
    (reader.folder / "appliance.toml").write_text(toml.replace("/srv/iris", str(reader.folder)))
    done = reader.read("from-pickle-to-rollout.md")
    assert set(IRIS_COMMANDS) <= set(done)
    assert reader.service
    active = lambda: reader.service.get("/models")[1]["models"][0]["active"]  # noqa: E731
    wait_for(lambda: active() == "1.0.0", "rolled back")
    receipts = reader.service.get("/models/iris/receipts")[1]["receipts"]
    assert [(one["what"], one["version"]) for one in reversed(receipts)] == [
        ("install", "1.0.0"), ("activate", "1.0.0"), ("install", "1.1.0"), ("activate", "1.1.0"), ("roll back", "1.0.0")
    ]  # fmt: skip


def test_the_workflow_of_the_page_calls_ours_with_what_it_takes():
    (text,) = blocks("from-pickle-to-rollout.md", "yaml")
    call = yaml.safe_load(text)["jobs"]["bundle"]
    ours = yaml.safe_load((ROOT / ".github/workflows/convert.yml").read_text())[True]["workflow_call"]
    assert set(call["with"]) <= set(ours["inputs"])
    assert set(call["secrets"]) <= set(ours["secrets"])
    for given, taken in ((call["with"], ours["inputs"]), (call["secrets"], ours["secrets"])):
        assert {name for name, one in taken.items() if one.get("required")} <= set(given)


def test_files_and_targets_that_the_pages_name_are_there():
    text = (PAGES / "from-pickle-to-rollout.md").read_text() + (PAGES / "coming-from.md").read_text()
    for path in re.findall(r"(?:packaging|ansible|tests|examples)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
    makefiles = "".join(path.read_text() for path in [ROOT / "Makefile", *ROOT.glob("*/**/*.mk")])
    for target in re.findall(r"make ([a-z][a-z0-9-]+)", re.sub(r"make targets", "", text)):
        assert re.search(rf"^(?:[\w-]+ )*{target}\b[\w -]*:", makefiles, re.MULTILINE), target
