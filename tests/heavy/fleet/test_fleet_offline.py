"""A host that no line reaches takes the fleet's step from a stick, and its receipt stands in the fleet's table."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import ASSETS, CONTAINER_HOSTS, HOSTS, bundle, console, disk_of, fleet, host, kit, models

NEAR, FAR = [name for name in HOSTS if name not in CONTAINER_HOSTS][:2]
VERSION, MODEL = "0.3.0", "1.1.0"
STEP = {
    "appliance_hosts": f"{NEAR}:{FAR}",
    "appliance_canary": NEAR,
    "appliance_max_pending": 1,
    "appliance_soak": 1,
    "appliance_kit": kit(VERSION),
    "bundle_models": [bundle(MODEL)],
}
"""What is stated for both; the bundle travels in the kit too, see assets.KITS."""


@pytest.fixture
def stick(serving, run) -> Iterator[Path]:
    """A folder on the far host's disk, as a stick that was put in; its cable is cut. All is as before at the end."""
    fleet("cut", FAR)
    folder = disk_of(FAR) / "media" / "stick"
    folder.mkdir()
    yield folder
    fleet("heal", FAR)
    shutil.rmtree(folder)
    old = {"appliance_hosts": STEP["appliance_hosts"]}
    assert run("site", old).code == 0


def test_site_without_a_line_takes_the_step_from_a_stick_and_its_receipt_tells_of_it(stick, run, tmp_path):
    there = run("rollout", STEP)
    assert there.code == 0, there.output[-4000:]
    assert f"pending: {FAR}" in there.output
    assert (models([NEAR])[NEAR]["active"], host(NEAR, "appliance --version").stdout.split()[2]) == (MODEL, VERSION)

    # The same kit goes by hand; the key came by another way.
    subprocess.run(["tar", "-xzf", kit(VERSION), "-C", stick], check=True)
    shutil.copyfile(ASSETS / "plant.key.pub", disk_of(FAR) / "root" / "plant.pub")
    console(FAR, "cd /media/stick/appliance-* && sh install.sh --key /root/plant.pub")
    console(FAR, "appliance probe iris && appliance mark-good iris --why 'answered its examples'")
    console(FAR, f"appliance status --json > /media/stick/{FAR}.json")

    receipts, report = tmp_path / "receipts", tmp_path / "fleet.json"
    receipts.mkdir()
    shutil.copyfile(stick / f"{FAR}.json", receipts / f"{FAR}.json")
    files = {"appliance_receipts": str(receipts), "appliance_status_file": str(report)}
    told = run("status", {"appliance_hosts": STEP["appliance_hosts"], **files})
    assert told.code == 0, told.output[-4000:]
    near, far = json.loads(report.read_text())["hosts"]
    assert (near["host"], near["reachable"], far["host"], far["reachable"]) == (NEAR, True, FAR, "receipt")
    for one in (near, far):
        (model,) = one["models"]
        assert (one["program"], one["ready"], model["active"], model["state"]) == (VERSION, True, MODEL, "good")
        assert model["self_test"]["when"]
        assert one["disk_free_bytes"] > 0
    row = next(line for line in told.output.splitlines() if f'"{FAR} ' in line).split()
    assert row[1:7] == ["receipt", VERSION, "yes", "iris", MODEL, "good"]

    # It took the very step: where a line comes one day, there is nothing left to do.
    fleet("heal", FAR)
    again = run("rollout", STEP)
    assert again.code == 0, again.output[-4000:]
    assert again.changed() == {NEAR: 0, FAR: 0}
    assert "as stated: 2 of 2 hosts" in again.output
