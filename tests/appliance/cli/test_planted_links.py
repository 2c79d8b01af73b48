"""Root's commands in a state folder of another user: whatever that user plants there, nothing outside is touched.

Each run is the real command in a forked process: root's, which becomes the folder's owner. Where the tests are not
root's, the planted links lead to files of one's own, and nothing outside may change all the same.
"""

import importlib
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from appliance import cli
from appliance.bundle import keys, signature
from appliance.bundle.archive import open_bundle, with_signature
from appliance.inference.selftest import self_test
from appliance.monitoring.prediction_log.lines import Header
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.writer import SegmentWriter
from appliance.mqtt.disk import Disk
from appliance.mqtt.folder import kept_id
from appliance.store import activation, routing_record
from appliance.store.routing_record import Arm, Routing
from appliance.store.versions import Store

OWNER = 12345
PATIENCE = 30.0
PRIVATE, PUBLIC = keys.generate_key()

STORE_COMMANDS = {
    "install": ["{bundles}/iris-3.0.0.bundle"],
    "activate": ["iris", "1.0.0"],
    "mark-good": ["iris"],
    "rollback": ["iris"],
    "deactivate": ["iris"],
    "canary": ["iris", "1.0.0"],
    "experiment": ["iris"],
    "promote": ["iris"],
    "abort": ["iris"],
    "models": [],
    "remove": ["iris", "1.0.0"],
    "pull": [],
    "status": [],
    "probe": ["iris", "--wait", "0"],
    "doctor": [],
    "predict": ["iris", "[1, 2, 3, 4]"],
    "score": ["iris", "{bundles}/rows.csv", "-o", "/dev/null", "--format", "csv"],
    "drift": ["accept", "iris", "--why", "as it should be"],
    "serve": ["--port", "0"],
    "log": ["verify", "iris"],
    "labels": ["iris", "{base}/labels.csv"],
    "replay": ["iris", "--version", "1.0.0"],
    "history": ["iris"],
    "backup": ["-"],
    "restore": ["{base}/absent.tar"],
}
"""Command -> its arguments. A new command must be named here or below."""
OTHERS = {
    "inspect": ["{bundles}/iris-3.0.0.bundle"],
    "verify": ["{bundles}/iris-3.0.0.bundle"],
    "keygen": ["{base}/never/key", "--no-password"],
    "sign": ["{bundles}/absent.bundle", "--key", "{base}/absent"],
    "index": ["{bundles}"],
    "convert": ["--help"],
    "lint": ["--help"],
    "completion": ["bash"],
}
"""Those that know no state folder."""
ALIKE = {"shadow": "canary", "split": "canary"}
"""Those whose way through the state folder is another command's, which is tried for them."""
USED = [
    *(
        f"appliance.cli.{name}"
        for name in ("doctor", "drift", "experiments", "labels", "log", "models", "probe", "pull")
    ),
    *(f"appliance.cli.{name}" for name in ("replay", "score", "serve", "status")),
    "appliance.service",
    "appliance.mqtt.listener",
    "appliance.pull.puller",
    "appliance.experiments.replay",
    "appliance.monitoring.drift_judge",
    "appliance.batch.scoring",
]
"""Modules that the commands need."""
WRITING = ("install", "activate", "mark-good", "rollback", "deactivate", "remove")
UNCHECKED = ("probe", "doctor", "serve", "promote", "abort")
"""Those that may fail for another reason: nothing serves here, this host has too little of something, nothing runs."""
SAID = ("it is a link", "is a link or a folder", "hard link", "neither a file nor a folder", "Not a directory")


@dataclass(frozen=True)
class Site:
    """A folder that anyone may enter, with a state folder to be copied, bundles, and what nobody may touch."""

    base: Path

    @property
    def template(self) -> Path:
        return self.base / "template"

    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def bundles(self) -> Path:
        return self.base / "bundles"

    @property
    def outside(self) -> Path:
        return self.base / "outside"

    def fresh(self) -> Path:
        """Return the state folder as it was at first."""
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.copytree(self.template, self.state)
        give_away(self.state)
        return self.state

    def run(self, command: str, arguments: list[str], looked: Path | None = None) -> tuple[int, str]:
        """Run a command in a process of its own; return its exit code (-1: it had to be killed) and what it said.

        The last parts of the paths that it looks at go to the file `looked`.
        """
        said = self.base / "said"
        named = {"bundles": self.bundles, "base": self.base}
        line = [command, *(argument.format(**named) for argument in arguments)]
        if command in STORE_COMMANDS:
            line += ["--state-dir", str(self.state), "--config", str(self.base / "appliance.toml")]
        child = os.fork()
        if child == 0:
            self._be(line, said, looked)
        return wait(child), said.read_text(errors="replace")

    def _be(self, line: list[str], said: Path, looked: Path | None = None) -> None:
        """Be the command; never returns."""
        code, names = 1, traced() if looked else set()
        file = os.open(looked, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if looked else -1
        try:
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = sys.stderr = os.fdopen(output, "w", buffering=1)
            if line[0] == "serve":
                threading.Thread(target=stop_once_it_serves, args=(said,), daemon=True).start()
            cli.appliance.main(args=line, prog_name="appliance")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            if looked:
                os.write(file, "\0".join(sorted(names)).encode())
            os._exit(code)

    def seen(self) -> dict[str, tuple[object, ...]]:
        """Return all that is outside: kind, mode, owner and content of each file, and what is in the base folder."""
        found: dict[str, tuple[object, ...]] = {"": tuple(sorted(path.name for path in self.base.iterdir()))}
        for path in sorted(self.outside.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found


def traced() -> set[str]:
    """Return the last parts of all paths that this process looks at from now on, a set that grows.

    What a library in C or a further process looks at is not in it.
    """
    names: set[str] = set()

    def note(arguments: Iterable[object]) -> None:
        for one in arguments:
            if isinstance(one, str | bytes | os.PathLike):
                names.add(Path(os.fsdecode(one)).name)

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" or event.startswith(("os.", "shutil.", "sqlite3.")):
            note(arguments)

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **rest: Any) -> Any:
            note(arguments)
            return call(*arguments, **rest)

        return noted

    sys.addaudithook(heard)
    for name in ("stat", "lstat", "access", "readlink"):  # of which nobody hears
        setattr(os, name, noting(getattr(os, name)))
    return names


def wait(child: int) -> int:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def stop_once_it_serves(said: Path) -> None:
    """End this process, a service, in good order: once HTTP listens and MQTT has tried its broker, or cannot begin."""
    while True:
        text = said.read_text(errors="replace")
        if '"listening"' in text and ('"disconnected from broker"' in text or '"MQTT is paused"' in text):
            break
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def log_header(slot: int, segment: int, prev: str, key: list[int] | None) -> Header:
    return Header(1, "iris", "1.0.0", [], [], [], [], "host", slot, segment, prev, "", key=key)


def give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, OWNER, OWNER, follow_symlinks=False)


@pytest.fixture(scope="module")
def site(make_bundle) -> Iterator[Site]:
    base = Path(tempfile.mkdtemp(prefix="appliance-links-"))
    base.chmod(0o755)
    try:
        yield furnished(Site(base), make_bundle)
    finally:
        shutil.rmtree(base)


def furnished(site: Site, make_bundle: Callable[..., Path]) -> Site:
    for folder in (site.bundles, site.outside, site.outside / "folder"):
        folder.mkdir()
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        path = make_bundle(site.bundles, version=version)
        opened = open_bundle(path)
        path.write_bytes(with_signature(opened, signature.sign(opened.members, PRIVATE)))
    (site.bundles / "rows.csv").write_text("sepal_length,sepal_width,petal_length,petal_width\n1,2,3,4\n")
    (site.base / "key.pub").write_bytes(PUBLIC)
    (site.base / "key.pub").chmod(0o600)
    (site.outside / "file").write_bytes(b"root's alone")
    (site.outside / "file").chmod(0o600)
    (site.outside / "folder" / "file").write_bytes(b"root's alone")
    os.mkfifo(site.outside / "fifo", 0o600)
    site.outside.chmod(0o700)
    (site.base / "appliance.toml").write_text(
        f'[store]\ntrusted_keys = ["{site.base}/key.pub"]\npreload_dir = "/nowhere"\n'
        f'[pull]\nsource = "{site.bundles}"\n'
        '[mqtt]\nhost = "127.0.0.1"\nport = 1\n[[mqtt.subscriptions]]\ntopic = "a"\nanswer = "b"\n'
    )
    (site.base / "said").write_text("")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            furnish(site)
            code = 0
        finally:
            os._exit(code)
    assert wait(child) == 0
    site.fresh()
    for module in USED:  # else each of a thousand processes imports them for itself
        importlib.import_module(module)
    return site


def furnish(site: Site) -> None:
    """Make a state folder in which every kind of file is."""
    store = Store(site.template, trusted_keys=[str(site.base / "key.pub")])
    for version in ("1.0.0", "2.0.0"):
        store.install(site.bundles / f"iris-{version}.bundle")
        activation.activate(store, "iris", version, self_test)
        activation.mark_good(store, "iris")
    ended = Routing(id="00aa11bb", salt="0" * 16, kind="split", base="1.0.0", arms=(Arm("1.0.0", 1.0),))
    routing_record.write(site.template / "models" / "iris", ended)  # another version is active: it counts for nothing
    (site.template / "mqtt").mkdir()
    Disk(site.template / "mqtt" / "outbox.sqlite").close()
    kept_id(site.template / "mqtt")
    (site.template / "mqtt" / "lock").touch()
    (site.template / "pull").mkdir()
    logged = SegmentWriter.open(Writer(site.template, "iris", "1.0.0", 0), log_header, time.time)
    logged.rotate()
    (site.base / "labels.csv").write_text("id,label\na.0,1\n")
    logged.abandon()
    for name in (".lock", "record.json", f"{'0' * 64}.partial"):
        (site.template / "pull" / name).write_bytes(b"{}")
    (site.template / "models" / "iris" / ".4.0.0.partial-00aa11bb").mkdir()
    (site.template / "drift" / "iris").mkdir(parents=True)
    (site.template / "drift" / "iris" / "1.0.0.json").write_bytes(b'{"format": 1, "layout": []}')
    for suffix in ("wal", "shm", "journal"):
        (site.template / "mqtt" / f"outbox.sqlite-{suffix}").touch()


def names(site: Site) -> list[str]:
    """Return every name in the state folder, of the members of versions those of the active one."""
    found = [path.relative_to(site.template).as_posix() for path in sorted(site.template.rglob("*"))]
    return [name for name in found if "/1.0.0/" not in name]


PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "link to a file": lambda place, outside: place.symlink_to(outside / "file"),
    "link to nothing": lambda place, outside: place.symlink_to(outside / "made"),
    "link to a folder": lambda place, outside: place.symlink_to(outside / "folder"),
    "link to a FIFO": lambda place, outside: place.symlink_to(outside / "fifo"),
    "FIFO": lambda place, _outside: os.mkfifo(place),
    "hard link": lambda place, outside: os.link(outside / "file", place),
}


def plant(site: Site, kind: str, *names: str) -> None:
    """Put what is planted in the place of each name."""
    state = site.fresh()
    for name in names:
        place = state / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        PLANTS[kind](place, site.outside)
        if os.geteuid() == 0 and kind != "hard link":
            os.chown(place, OWNER, OWNER, follow_symlinks=False)


@cache
def untouched(site: Site, command: str, places: tuple[str, ...]) -> tuple[int, list[list[str]]]:
    """Return a command's exit code, and the places that it does not look at, in groups that can be planted at once."""
    looked = site.base / "looked"
    site.fresh()
    code, _ = site.run(command, STORE_COMMANDS[command], looked)
    names = set(looked.read_text().split("\0"))
    looked.unlink()
    left = [name for name in places if name.rpartition("/")[2] not in names]
    tops = [name for name in left if not any(name.startswith(f"{other}/") for other in left)]
    ends = [name for name in left if not any(other.startswith(f"{name}/") for other in left)]
    return code, [group for group in ([tops] if tops == ends else [tops, ends]) if len(group) > 1]


def not_met(site: Site, command: str, kind: str, places: list[str]) -> set[str]:
    """Return the places that a command never meets: all planted at once, it goes its whole way as with none of them.

    It refuses nothing then, so nothing that is planted hides another: each alone would be met as little.
    """
    found: set[str] = set()
    alone, groups = untouched(site, command, tuple(places))
    for group in groups:
        plant(site, kind, *group)
        before = site.seen()
        code, said = site.run(command, STORE_COMMANDS[command])
        assert site.seen() == before, (group, said)
        if code == alone and not any(words in said for words in SAID):
            found.update(group)
    return found


def test_every_command_is_named_here():
    known = set(cli.appliance.list_commands(click.Context(cli.appliance)))
    assert known == set(STORE_COMMANDS) | set(OTHERS) | set(ALIKE)
    assert set(ALIKE.values()) <= set(STORE_COMMANDS)


@pytest.mark.parametrize("command", OTHERS)
def test_commands_without_a_state_folder_leave_it_alone(site, command):
    site.fresh()
    before = site.seen()
    code, said = site.run(command, OTHERS[command])
    assert code != -1, said
    assert site.seen() == before


@pytest.mark.parametrize("command", STORE_COMMANDS)
def test_without_anything_planted_the_command_works_as_the_owner(site, command):
    state = site.fresh()
    code, said = site.run(command, STORE_COMMANDS[command])
    # nothing serves; this host may have too little of something; the experiment has one version; no window has closed;
    # there is no backup to restore
    allowed = {"probe": (1,), "replay": (4,), "doctor": (0, 1), "promote": (1,), "drift": (4,)}
    allowed |= {"restore": (4,)}
    assert code in allowed.get(command, (0,)), said
    if os.geteuid() == 0:
        assert {path.lstat().st_uid for path in (state, *state.rglob("*"))} == {OWNER}


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("command", STORE_COMMANDS)
def test_what_is_planted_anywhere_leads_nowhere(site, command, kind):
    if kind not in ("link to a file", "FIFO") and command not in ("mark-good", "install"):
        places = [".lock", "models", "receipts"]
    elif command == "serve":
        places = [".lock", "models", "receipts", *(name for name in names(site) if name.startswith("mqtt"))]
    elif command in ("log", "labels", "replay"):
        places = [name for name in names(site) if name.split("/")[0] == "log"]
    elif command == "doctor":  # it looks at no other
        places = [name for name in names(site) if "/" not in name]
    else:  # of the log the commands that are for it
        places = [name for name in names(site) if not name.startswith("log/")]
    if len(places) > 5:
        elsewhere = not_met(site, command, kind, places)
        places = [name for name in places if name not in elsewhere]
    before = None
    for name in places:
        plant(site, kind, name)
        before = before or site.seen()
        code, said = site.run(command, STORE_COMMANDS[command])
        assert site.seen() == before, (name, said)
        assert code in (0, 1, 3, 4), (name, said)
        if code == 1 and command not in UNCHECKED:
            assert any(words in said for words in SAID), (name, said)


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("name", [".lock", "models", "models/iris", "models/iris/activation.json", "receipts", "month"])
def test_a_link_that_a_command_would_use_is_refused_as_a_link_and_nothing_is_half_done(site, command, name):
    if name == "month":
        name = next(one for one in names(site) if one.startswith("receipts/"))
    plant(site, "link to a file", name)
    record = site.state / "models" / "iris" / "activation.json"
    before = record.read_bytes() if "models" not in name else b""
    code, said = site.run(command, STORE_COMMANDS[command])
    if command == "install" and name == "models/iris/activation.json":
        assert code == 0, said  # it does not look at it
        return
    assert code == 1, said
    assert "it is a link" in said
    assert before == b"" or record.read_bytes() == before


@pytest.mark.parametrize("way", ["folder", "link", "open to all"])
def test_root_refuses_a_state_folder_to_which_others_decide_the_way(site, way):
    above = site.base / "above"
    shutil.rmtree(above, ignore_errors=True)
    above.mkdir()
    shutil.copytree(site.template, above / "state")
    give_away(above / "state")
    path = above / "state"
    root = os.geteuid() == 0  # only root can be led by others
    if way == "folder":
        os.chown(above, 54321, 54321) if root else None
    elif way == "link":
        path = above / "link"
        path.symlink_to("state")
        os.chown(path, 54321, 54321, follow_symlinks=False) if root else None
    else:
        above.chmod(0o777)
    child = os.fork()
    if child == 0:
        site._be(["mark-good", "iris", "--state-dir", str(path)], site.base / "said")
    assert wait(child) == (1 if root else 0)
    assert ("lead root anywhere" in (site.base / "said").read_text()) == root
    shutil.rmtree(above)
