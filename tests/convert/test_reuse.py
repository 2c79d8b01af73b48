"""`appliance convert --reuse`: a certificate is taken over where nothing changed, and only there."""

import json
import subprocess
import sys
from dataclasses import replace

import joblib
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from appliance.bundle import archive
from appliance.errors import NotFound
from convert import reuse
from convert.job import Job, run
from convert.sources import fetch


@pytest.fixture(scope="module")
def made(tmp_path_factory, iris):
    """A folder with a model, its sample and its bundle, and the job that made it."""
    folder = tmp_path_factory.mktemp("reuse")
    joblib.dump(LogisticRegression(max_iter=500).fit(*iris), folder / "model.joblib")
    sample = folder / "sample.csv"
    sample.write_text("a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in iris[0][::3]))
    job = Job(fetch(str(folder / "model.joblib"), folder), "iris", "1.0.0", sample)
    reports = []
    conversion, _ = run(job, lambda message, loads=False: None, reports.append)
    assert reports == [conversion.parity]
    return job, conversion.write(folder)


def test_another_version_takes_over_the_certificate(made):
    job, bundle = made
    conversion, changed = reuse.find(bundle, replace(job, version="1.0.1"))
    assert changed == []
    before, after = archive.open_bundle(bundle), archive.read(conversion.bundle())
    assert (after.manifest.name, after.manifest.version) == ("iris", "1.0.1")
    assert {name for name, content in after.members.items() if content != before.members[name]} == {archive.MANIFEST}
    again, _ = reuse.find(bundle, job)
    assert again.bundle() == bundle.read_bytes()


@pytest.mark.parametrize("what", ["model", "sample", "options", "libraries", "appliance"])
def test_whatever_changed_is_named_and_nothing_is_taken_over(made, tmp_path, monkeypatch, what):
    job, bundle = made
    if what == "model":
        path = tmp_path / "model.joblib"
        path.write_bytes(job.fetched.path.read_bytes() + b"\n")
        job = replace(job, fetched=replace(job.fetched, path=path))
    elif what == "sample":
        path = tmp_path / "sample.csv"
        path.write_text(job.sample.read_text() + "\n1,2,3,4")
        job = replace(job, sample=path)
    elif what == "options":
        job = replace(job, outputs=("prediction",))
    elif what == "libraries":
        monkeypatch.setattr(reuse, "_distributions", lambda: ["scikit-learn-0.1"])
    else:
        monkeypatch.setattr(reuse, "_PROGRAM", ("convert",))
    assert reuse.find(bundle, job) == (None, [what])


def test_a_model_with_modules_of_its_own_is_proved_again(made, tmp_path, iris, monkeypatch):
    job, _ = made
    (tmp_path / "plant_steps.py").write_text("def double(x):\n    return x * 2.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    import plant_steps

    model = make_pipeline(FunctionTransformer(plant_steps.double), LogisticRegression(max_iter=500)).fit(*iris)
    joblib.dump(model, tmp_path / "own.joblib")
    monkeypatch.delitem(sys.modules, "plant_steps")
    own = replace(job, fetched=fetch(str(tmp_path / "own.joblib"), tmp_path))
    conversion, _ = run(own, lambda message, loads=False: None, lambda report: None)
    found, changed = reuse.find(conversion.write(tmp_path), own)
    assert found is None
    assert "plant_steps" in changed[0]


def test_a_bundle_that_is_not_there_is_told(made, tmp_path):
    with pytest.raises(NotFound):
        reuse.find(tmp_path / "none.bundle", made[0])


def test_the_command_starts_no_process_where_nothing_changed(made):
    job, bundle = made
    folder = bundle.parent
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "convert", str(job.fetched.path)]
    options = ["--name", "iris", "--version", "2.0.0", "--sample", str(job.sample), "-o", str(folder)]
    told = "print('heavy:', {'sklearn', 'onnx'} & set(sys.modules), file=sys.stderr)"
    command[2] = f"import atexit, sys; atexit.register(lambda: {told}); {command[2]}"
    ran = subprocess.run([*command, *options, "--reuse", str(bundle), "--json"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "heavy: set()" in ran.stderr
    assert json.loads(ran.stdout)["bundle"].endswith("iris-2.0.0.bundle")
    assert archive.open_bundle(folder / "iris-2.0.0.bundle").manifest.version == "2.0.0"
