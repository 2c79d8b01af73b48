"""Files scored in parts by others: GNU parallel, and the Job for Kubernetes, valid and its container's command run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from appliance.bundle import keys
from tests.appliance.conftest import build_bundle
from tests.packaging.test_kubernetes_manifests import KUSTOMIZE, VERSIONS, Document, one

ROOT = Path(__file__).parents[2]
SCORE = ROOT / "packaging" / "kubernetes" / "score"
PAGE = ROOT / "docs" / "how-to" / "score.md"
HEADER = "sepal_length,sepal_width,petal_length,petal_width"
PARTS = 4


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> list[Document]:
    """The Job and what belongs to it, as kustomize builds it with a public key beside it."""
    folder = tmp_path_factory.mktemp("score") / "score"
    shutil.copytree(SCORE, folder)
    (folder / "bundles.pub").write_bytes(keys.generate_key()[1])
    done = subprocess.run([KUSTOMIZE, "build", folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def test_the_job_is_valid_by_the_official_schemas(built):
    assert {document["kind"] for document in built} == {"Job", "NetworkPolicy", "ServiceAccount", "ConfigMap"}
    for document in built:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
    job = one(built, "Job")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "completionz": 1}}, VERSIONS[0], strict=True)


def test_the_job_s_pods_are_closed_and_its_parts_fit_together(built):
    job = one(built, "Job")["spec"]
    pod, (container,) = job["template"]["spec"], job["template"]["spec"]["containers"]
    assert job["completionMode"] == "Indexed"
    assert variables(built)["PARTS"] == str(job["completions"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    (keys_volume,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert keys_volume == one(built, "ConfigMap")["metadata"]["name"]
    assert pod["serviceAccountName"] == one(built, "ServiceAccount")["metadata"]["name"]
    policy = one(built, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= job["template"]["metadata"]["labels"].items()
    assert policy["ingress"] == policy["egress"] == []
    failing = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [rule["containerName"] for rule in failing] == [container["name"]]


def variables(built: list[Document]) -> dict[str, str]:
    (container,) = one(built, "Job")["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.fixture
def rows(tmp_path) -> Path:
    """A folder of six small tables, so that four parts have one or two."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for table in range(6):
        lines = [f"{table},{row},0.5,{row * table}" for row in range(5)]
        (folder / f"{table}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return folder


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """What the commands run with: `appliance` first in PATH, a state folder of its own."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "appliance").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from appliance.cli import main; main()' \"$@\"\n"
    )
    (tools / "appliance").chmod(0o755)
    state = tmp_path / "state"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")},
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "APPLIANCE_STATE_DIR": str(state),
        "HOME": str(tmp_path),
    }


def whole(folder: Path, environment: dict[str, str], bundle: Path, *more: str) -> list[str]:
    """Return the rows of a folder scored at once, without the header."""
    output = folder.parent / "whole.csv"
    subprocess.run(["appliance", "score", bundle, folder, "-o", output, *more], env=environment, check=True,
                   capture_output=True)  # fmt: skip
    return output.read_text().splitlines()[1:]


def parts(folder: Path) -> list[str]:
    """Return the rows of all parts, without headers."""
    found = sorted(folder.iterdir())
    assert [path.name for path in found] == [f"part-{part}-of-{PARTS}.csv" for part in range(1, PARTS + 1)]
    return [line for path in found for line in path.read_text().splitlines()[1:]]


def test_the_job_s_command_scores_every_part_and_a_part_again_to_the_same_bytes(built, rows, environment, tmp_path):
    private, public = keys.generate_key()
    bundle, key = tmp_path / "iris.bundle", tmp_path / "key.pub"
    key.write_bytes(public)
    (tmp_path / "key").write_bytes(private)
    bundle.write_bytes(build_bundle())
    subprocess.run(["appliance", "sign", bundle, "--key", tmp_path / "key"], env=environment, check=True,
                   capture_output=True)  # fmt: skip
    (container,) = one(built, "Job")["spec"]["template"]["spec"]["containers"]
    here = {
        "BUNDLE": str(bundle),
        "INPUT": str(rows),
        "OUTPUT": str(tmp_path / "scored"),
        "APPLIANCE_STORE_TRUSTED_KEYS": str(key),
    }
    assert here.keys() <= variables(built).keys()
    told = []
    for index in (*range(PARTS), 2):
        pod = {**environment, **variables(built), **here, "JOB_COMPLETION_INDEX": str(index)}
        done = subprocess.run([*container["command"], *container["args"]], env=pod, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert told[-1]["output"]["sha256"] == told[2]["output"]["sha256"]
    assert [one["rows"] for one in told] == [10, 10, 5, 5, 5]
    assert sorted(parts(tmp_path / "scored")) == sorted(whole(rows, environment, bundle, "--provenance"))


def test_gnu_parallel_scores_every_part_by_the_line_of_the_page(rows, environment, tmp_path):
    (line,) = re.findall(r"^    (parallel appliance score .*)$", PAGE.read_text(), re.MULTILINE)
    bundle = tmp_path / "iris.bundle"
    bundle.write_bytes(build_bundle())
    subprocess.run(["appliance", "install", bundle], env=environment, check=True, capture_output=True)
    subprocess.run(["appliance", "activate", "iris", "1.0.0"], env=environment, check=True, capture_output=True)
    done = subprocess.run(["sh", "-c", line], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(parts(tmp_path / "scored")) == sorted(whole(rows, environment, bundle))
