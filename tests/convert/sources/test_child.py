"""The process that loads and converts: whatever happens in it is a clear refusal here."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from appliance.errors import ConversionRefused, InvalidInput
from convert import child
from convert.job import Job
from convert.sources import fetch
from tests.conftest import wait_for


class Bomb:
    """An object whose pickle runs a line of Python when it is loaded."""

    def __init__(self, line):
        self.line = line

    def __reduce__(self):
        return exec, (self.line,)


@pytest.fixture
def sample(tmp_path, iris):
    path = tmp_path / "sample.csv"
    path.write_text("a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in iris[0][::5]))
    return path


def job(path, sample, **more):
    return Job(fetch(str(path), path.parent), "iris", "1.0.0", sample, **more)


def bomb(tmp_path, line):
    joblib.dump(Bomb(line), tmp_path / "model.joblib")
    return tmp_path / "model.joblib"


def is_over(pid):
    """Return whether a process is gone, or waits to be buried by init."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_a_job_comes_back_whole_with_its_progress_and_report(tmp_path, iris, sample):
    joblib.dump(LogisticRegression(max_iter=500).fit(*iris), tmp_path / "model.joblib")
    told, reports = [], []
    conversion, notes = child.convert(job(tmp_path / "model.joblib", sample), told.append, reports.append)
    assert conversion.manifest.provenance.source == "model.joblib"
    assert conversion.bundle()
    assert reports == [conversion.parity]
    assert told[0] == "loading the model"
    assert notes == ()


def test_a_model_that_hangs_while_loading_is_ended_in_time(tmp_path, sample):
    began = tmp_path / "began"
    line = f"import time, pathlib, os; pathlib.Path({str(began)!r}).write_text(str(os.getpid())); time.sleep(100)"
    with pytest.raises(ConversionRefused, match="did not end within 1 s while loading the model"):
        child.convert(job(bomb(tmp_path, line), sample, time_limit=1.0))
    assert not Path(f"/proc/{began.read_text()}").exists()


def test_what_the_model_started_ends_with_it(tmp_path, sample):
    pid = tmp_path / "pid"
    line = (
        f"import subprocess, pathlib, time; p = subprocess.Popen(['sleep', '100']); "
        f"pathlib.Path({str(pid)!r}).write_text(str(p.pid)); time.sleep(100)"
    )
    with pytest.raises(ConversionRefused):
        child.convert(job(bomb(tmp_path, line), sample, time_limit=1.0))
    wait_for(lambda: is_over(pid.read_text()), "ended")


def test_the_start_of_the_process_is_not_held_against_the_model(tmp_path, iris, sample):
    joblib.dump(LogisticRegression(max_iter=500).fit(*iris), tmp_path / "model.joblib")
    with pytest.raises(ConversionRefused, match=r"while (?!starting)"):
        child.convert(job(tmp_path / "model.joblib", sample, time_limit=1e-4))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_killed_leaves_no_process_behind(tmp_path, sample, end):
    began = tmp_path / "began"
    line = f"import time, pathlib, os; pathlib.Path({str(began)!r}).write_text(str(os.getpid())); time.sleep(100)"
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "convert", str(bomb(tmp_path, line))]
    options = ["--name", "iris", "--version", "1.0.0", "--sample", str(sample), "-o", str(tmp_path)]
    with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL) as asked:
        wait_for(lambda: began.exists() and began.read_text(), "began to load", 120)
        asked.send_signal(end)
    assert wait_for(lambda: is_over(began.read_text()), "ended with the command")


@pytest.mark.parametrize(
    "line", ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 11)", "raise SystemExit(5)"], ids=str
)
def test_a_model_that_ends_its_process_is_refused(tmp_path, sample, line):
    with pytest.raises(ConversionRefused) as refused:
        child.convert(job(bomb(tmp_path, line), sample))
    assert "died while loading the model" in refused.value.found


def test_a_model_that_takes_too_much_memory_is_refused(tmp_path, sample):
    with pytest.raises(ConversionRefused, match=r"MemoryError|GiB of memory"):
        child.convert(job(bomb(tmp_path, "bytearray(3 << 30)"), sample), memory=2 << 30)


def test_errors_keep_their_kind_and_words(tmp_path, iris, sample):
    joblib.dump(LogisticRegression(max_iter=500).fit(*iris), tmp_path / "model.joblib")
    with pytest.raises(InvalidInput, match="no such column") as wrong:
        child.convert(job(tmp_path / "model.joblib", sample, target=("species",)))
    assert wrong.value.next_step == "name one of them"


def test_what_the_model_prints_stays_out_of_the_json_document(tmp_path, sample):
    path = bomb(tmp_path, "print('hello from the model')")
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "convert", str(path)]
    options = ["--name", "iris", "--version", "1.0.0", "--sample", str(sample), "--json", "-o", str(tmp_path)]
    ran = subprocess.run([*command, *options], capture_output=True, text=True)
    assert ran.returncode in (2, 3)
    assert json.loads(ran.stdout)["exit_code"] == ran.returncode
    assert "hello from the model" in ran.stderr


def test_the_bundle_of_the_command_names_the_source(tmp_path, iris, sample):
    joblib.dump(LogisticRegression(max_iter=500).fit(*iris), tmp_path / "model.joblib")
    command = [
        sys.executable,
        "-c",
        "from appliance.cli import main; main()",
        "convert",
        str(tmp_path / "model.joblib"),
    ]
    options = ["--name", "iris", "--version", "1.0.0", "--sample", str(sample), "--json", "-o", str(tmp_path)]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(ran.stdout)["parity"]["passed"] is True
    assert ran.stderr == "notice: loading model.joblib runs the code in it, with your rights\n"
