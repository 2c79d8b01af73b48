"""The scripts of the workflows: a model becomes a signed bundle, a tag must say what is released."""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

RELEASE = Path(__file__).parents[2] / "packaging" / "release"
BIN = Path(sys.executable).parent


def script(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
    return subprocess.run(
        ["sh", str(RELEASE / name)],
        cwd=folder,
        env={**clean, "BIN": str(BIN), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def appliance(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "appliance", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a trained model and its sample."""
    folder = tmp_path_factory.mktemp("trained")
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    joblib.dump(LinearRegression().fit(rows, rows.sum(axis=1)), folder / "model.joblib")
    rows.assign(answer=rows.sum(axis=1)).to_csv(folder / "sample.csv", index=False)
    return folder


def test_a_model_becomes_a_bundle_that_was_tried_and_a_key_signs_it(trained, tmp_path):
    assert appliance("keygen", tmp_path / "key", "--no-password").returncode == 0
    given = {"MODEL": "model.joblib", "NAME": "sum", "VERSION": "1.0.0", "SAMPLE": "sample.csv", "TARGET": "answer"}
    done = script(
        "bundle.sh", tmp_path, FROM=str(trained), OUT=str(tmp_path / "out"), KEY=str(tmp_path / "key"), **given
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-test passed" in done.stdout
    assert appliance("verify", tmp_path / "out" / "sum-1.0.0.bundle", "--key", tmp_path / "key.pub").returncode == 0


def test_what_is_missing_is_said(tmp_path):
    done = script("bundle.sh", tmp_path, MODEL="x", NAME="y")
    assert done.returncode == 2
    assert "VERSION is not set" in done.stderr


@pytest.mark.parametrize("value", ["$(touch hacked)", "`touch hacked`", "x; touch hacked", "--help", "two words", "*"])
def test_values_of_the_caller_arrive_whole_and_are_never_run(tmp_path, value):
    stand_in = tmp_path / "bin" / "appliance"
    stand_in.parent.mkdir()
    stand_in.write_text(f"#!/bin/sh\nprintf '<%s>\\n' \"$@\" >> '{tmp_path}/arguments'\n")
    stand_in.chmod(0o755)
    for key in ("MODEL", "NAME", "VERSION", "SAMPLE", "TARGET", "TRUST", "KEY"):
        (tmp_path / "arguments").write_text("")
        given = {
            "MODEL": "m",
            "NAME": "sum",
            "VERSION": "1.0.0",
            "SAMPLE": "s",
            "TARGET": "t",
            "TRUST": "u",
            "KEY": "k",
        }
        script("bundle.sh", tmp_path, **{**given, "BIN": str(tmp_path / "bin"), key: value})
        arguments = (tmp_path / "arguments").read_text().splitlines()
        option = {"KEY": "sign"}.get(key, key.lower())
        expected = f"<{value}>" if key == "MODEL" else f"<--{option}={value}>"
        assert expected in arguments, key
        assert arguments.index("<-->") == arguments.index(f"<{value if key == 'MODEL' else 'm'}>", 2) - 1
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize(
    ("tag", "changelog", "code"),
    [
        ("v1.2.3", "## 1.2.3 - 2026-11-23\n", 0),
        ("v1.2.3", "## [1.2.3]\n", 0),
        ("v1.2.3", "## Unreleased\n", 1),
        ("v1.2.3", "## 1.2.3 - unreleased\n", 1),
        ("v1.2.3", "## 1.2.34 - 2026-11-23\n", 1),
        ("v1.2.4", "## 1.2.4\n", 1),
        ("1.2.3", "## 1.2.3\n", 1),
        ("", "## 1.2.3\n", 1),
    ],
)
def test_a_tag_must_say_the_version_and_the_changelog_must_tell_of_it(tmp_path, tag, changelog, code):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    assert script("check.sh", tmp_path, TAG=tag).returncode == code
