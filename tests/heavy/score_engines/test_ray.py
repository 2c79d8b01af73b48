"""`appliance score --cluster`: the same bytes as a local run, on this host's Ray and on two nodes, one killed."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port, wait_for
from tests.heavy.score_engines.conftest import score, write_rows

ROWS = 600_000
SECONDS = 180.0  # for what starts on a busy machine


def descendants(process: int) -> Iterator[int]:
    """Yield the processes that a process has started, and theirs."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def actors(node: "subprocess.Popen[bytes]") -> list[int]:
    """Return the processes on a node that hold a session."""
    found = []
    for process in descendants(node.pid):
        with contextlib.suppress(OSError):
            if b"_Actor" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


class Cluster:
    """A head that scores nothing, and two nodes with one processor each."""

    def __init__(self, program: Path, environment: dict[str, str], folder: Path) -> None:
        self._ray = program.with_name("ray")
        self._environment = environment
        self._folder = folder
        self.address = f"ray://127.0.0.1:{free_port()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        port = free_port()
        client = f"--ray-client-server-port={self.address.rpartition(':')[2]}"
        self._start("head", "--head", f"--port={port}", client, "--num-cpus=0", "--include-dashboard=false")
        self.nodes = [self._start(name, f"--address=127.0.0.1:{port}", "--num-cpus=1") for name in ("one", "two")]

    def _start(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a node, and wait until it is there: two that start at once on one host take each other's ports."""
        ports = ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
        fixed = ["--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", "--object-store-memory=100000000"]
        path = self._folder / name
        with path.open("wb") as log:
            started = subprocess.Popen(
                [self._ray, "start", *fixed, *ports, *arguments],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(started)

        def there() -> bool:
            assert started.poll() is None, path.read_text()
            return "Ray runtime started" in path.read_text()

        wait_for(there, f"node {name}", SECONDS)
        return started

    def kill(self, node: "subprocess.Popen[bytes]") -> None:
        """Kill a node with all that runs on it, as a power cut does."""
        for process in [node.pid, *descendants(node.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.wait(30)

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                self.kill(process)


@pytest.fixture(scope="module")
def cluster(program, environment, tmp_path_factory) -> Iterator[Cluster]:
    made = Cluster(program, environment, tmp_path_factory.mktemp("ray"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_rows(path, ROWS, bad=5000)
    return path


QUARANTINE = ["--bad-rows", "quarantine", "--max-bad", "1%"]


@pytest.fixture(scope="module")
def local(program, environment, bundle, table) -> Path:
    """The rows scored by one process of this host."""
    output = table.with_name("local.csv")
    told = score(program, environment, bundle, table, "-o", output, "--processes", 1, *QUARANTINE)
    assert (told["rows"], told["bad"]) == (ROWS, ROWS // 5000)
    return output


def same(output: Path, local: Path) -> bool:
    """Return whether output and quarantine are those of the local run, and nothing else is left."""
    rejected = [Path(f"{path}.rejected.jsonl").read_bytes() for path in (output, local)]
    left = [Path(f"{output}{end}").exists() for end in (".partial", ".progress.json")]
    return output.read_bytes() == local.read_bytes() and rejected[0] == rejected[1] and not any(left)


def test_a_ray_of_this_host_gives_the_same_bytes(program, environment, bundle, table, local, tmp_path):
    output = tmp_path / "out.csv"
    told = score(
        program, environment, bundle, table, "-o", output, "--cluster", "local",
        "--processes", 2, *QUARANTINE,
    )  # fmt: skip
    assert told["rows"] == ROWS
    assert same(output, local)


def test_parquet_gives_the_same_rows(program, environment, bundle, cluster, table, tmp_path):
    small = tmp_path / "small.csv"
    small.write_text("".join(line + "\n" for line in table.read_text().splitlines()[:4000]))
    score(program, environment, bundle, small, "-o", tmp_path / "in.parquet", "--keep", "all")
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    for output, more in ((here, []), (there, ["--cluster", cluster.address])):
        kept = ["--keep", "plant", "--provenance"]
        score(program, environment, bundle, tmp_path / "in.parquet", "-o", output, *kept, *more)
    assert there.read_bytes() == here.read_bytes()


def test_a_node_that_is_killed_in_the_middle_loses_nothing(
    program, environment, bundle, cluster, table, local, tmp_path
):
    output = tmp_path / "out.csv"
    command = [program, "score", bundle, table, "-o", output, "--cluster", cluster.address]
    with subprocess.Popen(
        [*map(str, command), *QUARANTINE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        partial = Path(f"{output}.partial")

        def under_way() -> bool:
            assert run.poll() is None, run.communicate()
            busy = all(actors(node) for node in cluster.nodes)
            return busy and partial.exists() and partial.stat().st_size > local.stat().st_size // 10

        wait_for(under_way, "both nodes at work", SECONDS)
        cluster.kill(cluster.nodes[0])
        assert not output.exists()
        told, errors = run.communicate(timeout=400)
    assert run.returncode == 0, errors
    assert re.match(rf"{ROWS} rows, {ROWS // 5000} bad, iris 1.0.0", told)
    assert same(output, local)


def interrupted(program, environment, output: Path, local: Path, command: list[object], number: int) -> str:
    """Start a run and send it a signal once a tenth is written; return what it said."""
    partial = Path(f"{output}.partial")
    with subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True) as run:

        def under_way() -> bool:
            assert run.poll() is None, run.communicate()
            return partial.exists() and partial.stat().st_size > local.stat().st_size // 10

        wait_for(under_way, "some output", SECONDS)
        run.send_signal(number)
        _, said = run.communicate(timeout=SECONDS)
    assert run.returncode == (1 if number == signal.SIGTERM else -number), said
    assert not output.exists()
    return said


def test_sigterm_ends_with_a_checkpoint_from_which_a_ray_goes_on(program, environment, bundle, table, local, tmp_path):
    output = tmp_path / "out.csv"
    arguments = [bundle, table, "-o", output, "--cluster", "local", "--processes", 2, *QUARANTINE]
    said = interrupted(program, environment, output, local, [program, "score", *arguments], signal.SIGTERM)
    assert "repeat the command: it goes on there" in said
    told = score(program, environment, *arguments)
    assert 0 < told["resumed"] < told["rows"] == ROWS
    assert same(output, local)


def test_a_run_that_is_killed_goes_on_with_or_without_a_cluster(
    program, environment, bundle, cluster, table, local, tmp_path
):
    output = tmp_path / "out.csv"
    arguments = [bundle, table, "-o", output, *QUARANTINE]
    remote = [*arguments, "--cluster", cluster.address]
    interrupted(program, environment, output, local, [program, "score", *remote], signal.SIGKILL)
    there = Path(f"{output}.progress.json").exists()  # none within the first five seconds: then it starts again
    told = score(program, environment, *arguments, "--processes", 1)
    assert bool(told["resumed"]) == there
    assert same(output, local)


def test_an_input_that_grows_meanwhile_gives_no_output(program, environment, bundle, table, local, tmp_path):
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(table.read_bytes())
    command = [program, "score", bundle, source, "-o", output, "--cluster", "local", "--processes", "1", *QUARANTINE]
    partial = Path(f"{output}.partial")
    with subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True) as run:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 0, "some output", SECONDS)
        with source.open("a") as file:
            file.write("late,1,2,3,4\n")
        _, said = run.communicate(timeout=SECONDS)
    assert run.returncode == 2, said
    assert "written to while it was read" in said
    assert not output.exists()


@pytest.mark.parametrize(("change", "code", "said"), [
    (lambda rows: rows, 1, "row 4999 (line 5001), column 'sepal_width'"),
    (lambda rows: rows.replace("sepal_width", "width"), 2, "its header has no column 'sepal_width'"),
])  # fmt: skip
def test_errors_are_those_of_a_local_run(
    program, environment, bundle, table, tmp_path, change: Callable[[str], str], code, said
):
    source = tmp_path / "in.csv"
    source.write_text(change("".join(table.open().readlines()[:6000])))
    said_by = []
    for more in ([], ["--cluster", "local"]):
        command = [program, "score", bundle, source, "-o", tmp_path / "out.csv", *more]
        done = subprocess.run([*map(str, command), "--processes", "1", "--no-resume"], env=environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == code
        said_by.append(done.stderr)
    assert said in said_by[0]
    assert said_by[1] == said_by[0]


def test_a_cluster_that_is_not_there_is_told(program, environment, bundle, table, tmp_path):
    address = f"ray://127.0.0.1:{free_port()}"
    command = [program, "score", bundle, table, "-o", tmp_path / "out.csv", "--cluster", address]
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"join the cluster {address}" in done.stderr
    assert not (tmp_path / "out.csv").exists()
