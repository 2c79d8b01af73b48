"""rollout.yml and site.yml with versions of the program: up, down, and back where one fails its gate."""

import hashlib
import io
import json
import tarfile
import tomllib
from pathlib import Path

import pytest
from hosts import ASSETS, CONTAINER_HOSTS, HOSTS, active, engine, everywhere, host, kit, probes
from test_fleet_rollout import CANARY, WAVES
from test_fleet_site import changes, predict

BINARY_HOSTS = tuple(name for name in HOSTS if name not in CONTAINER_HOSTS)


def versions() -> set[str]:
    """Return the program versions of the hosts that have the binary."""
    return {out.split()[2] for out in everywhere("appliance --version", BINARY_HOSTS).values()}


def test_program_goes_up_and_down_and_the_models_stay(serving, run):
    for version in ("0.2.0", "0.1.0"):
        wanted = {"appliance_kit": kit(version), "appliance_canary": CANARY, "appliance_waves": WAVES}
        play = run("rollout", wanted)
        assert play.code == 0, play.output[-4000:]
        assert versions() == {version}
        assert active() == dict.fromkeys(HOSTS, "1.0.0")
        assert {found["code"] for found in probes().values()} == {0}
        again = run("site", {"appliance_kit": kit(version)})
        assert again.code == 0, again.output[-4000:]
        assert again.changed() == dict.fromkeys(HOSTS, 0)


def test_kit_that_was_altered_is_refused_before_any_host_sees_it(serving, run, tmp_path):
    altered = bytearray(Path(kit("0.2.0")).read_bytes())
    altered[len(altered) // 2] ^= 1
    bad = tmp_path / "appliance-0.2.0-linux-x86_64.tar.gz"
    bad.write_bytes(altered)
    play = run("rollout", {"appliance_kit": str(bad), "appliance_canary": CANARY, "appliance_waves": WAVES})
    assert play.code == 2, play.output[-4000:]
    assert versions() == {"0.1.0"}
    assert {found["code"] for found in probes().values()} == {0}


def test_program_that_does_not_start_with_new_settings_goes_back_with_settings_and_secrets(serving, run, drop_in):
    drop_in(CANARY, "ExecStartPre=/bin/sh -c '! grep max_rows /etc/appliance/appliance.toml'")
    looked = "cd /etc/appliance && sha256sum appliance.toml tokens && stat -c '%n %a %U:%G' appliance.toml tokens"
    before = host(CANARY, looked).stdout
    wanted = {
        "appliance_kit": kit("0.2.0"),
        "appliance_tokens": [{"scope": "predict", "token": "another-token-0123456789"}],
        "appliance_config": {"http": {"max_rows": 5000}},
        "appliance_canary": CANARY,
    }
    play = run("rollout", wanted)
    assert play.code == 2, play.output[-4000:]
    assert "stopped: canary" in play.output
    assert "Return to the settings and secrets" in play.output
    assert host(CANARY, looked).stdout == before
    assert versions() == {"0.1.0"}
    assert predict(CANARY)[0] == 200
    assert probes([CANARY])[CANARY]["code"] == 0


TAG = "edge-inference-appliance:{}-amd64"
OWN = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["version"]
"""The version of the image that the inventory states."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """{version: archive} of the same image under other versions, with other configurations."""
    folder = tmp_path_factory.mktemp("images")
    return {version: labelled(ASSETS / "image.tar.gz", folder, version) for version in ("0.2.0", "0.3.0")}


def labelled(source: Path, folder: Path, version: str) -> Path:
    """Write an archive as `docker save` does of an image whose label and tag name a version."""
    target = folder / f"{version}.tar.gz"
    with tarfile.open(source) as old, tarfile.open(target, "w:gz", compresslevel=1) as new:
        (manifest,) = json.load(old.extractfile("manifest.json"))
        config = json.load(old.extractfile(manifest["Config"]))
        config["config"]["Labels"]["org.opencontainers.image.version"] = version
        content = json.dumps(config).encode()
        name = f"{hashlib.sha256(content).hexdigest()}.json"
        described = [{**manifest, "Config": name, "RepoTags": [TAG.format(version)]}]
        for member, data in (("manifest.json", json.dumps(described).encode()), (name, content)):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
        for member in old:
            if member.name in manifest["Layers"]:
                new.addfile(member, old.extractfile(member))
    return target


def running() -> set[str]:
    """Return the images that serve on the hosts of the container method."""
    ids = {name: host(name, f"{engine(name)} ps --format '{{{{.Image}}}}'").stdout.strip() for name in CONTAINER_HOSTS}
    return {found.removeprefix("localhost/") for found in ids.values()}  # where Podman has what came without a registry


def kept(name: str) -> set[str]:
    """Return the versions of which a host has the image."""
    return set(host(name, f"{engine(name)} image ls --format '{{{{.Tag}}}}'").stdout.split())


def test_image_goes_up_and_back_and_the_one_before_is_kept(serving, run, images):
    alone = {"appliance_hosts": ":".join(CONTAINER_HOSTS), "appliance_soak": 1, "appliance_waves": ["100%"]}
    for version in ("0.2.0", "0.3.0"):
        wanted = {**alone, "appliance_image": str(images[version])}
        checked = run("rollout", wanted, "--check", "--diff")
        assert checked.code == 0, checked.output[-4000:]
        assert TAG.format(version) not in running()
        play = run("rollout", wanted)
        assert play.code == 0, play.output[-4000:]
        # Only at its end there is a journal to end.
        untold = {task for task, _ in set(changes(play.output)) - set(changes(checked.output))}
        assert untold == {"inference.appliance.appliance : End the journal"}
        assert running() == {TAG.format(version)}
    assert [kept(name) for name in CONTAINER_HOSTS] == [{"0.2.0-amd64", "0.3.0-amd64"}] * len(CONTAINER_HOSTS)
    back = {"appliance_hosts": alone["appliance_hosts"], "rollback_models": False, "rollback_program": True}
    checked = run("rollback", back, "--check")
    assert (checked.code, running()) == (0, {TAG.format("0.3.0")}), checked.output[-4000:]
    assert all(checked.changed()[name] for name in CONTAINER_HOSTS)
    done = run("rollback", back)
    assert done.code == 0, done.output[-4000:]
    assert running() == {TAG.format("0.2.0")}
    assert active(CONTAINER_HOSTS) == dict.fromkeys(CONTAINER_HOSTS, "1.0.0")
    # What is stated in the inventory is another one still.
    again = run("site", {"appliance_hosts": alone["appliance_hosts"]})
    assert again.code == 0, again.output[-4000:]
    assert running() == {TAG.format(OWN)}
    assert [kept(name) for name in CONTAINER_HOSTS] == [{f"{OWN}-amd64", "0.2.0-amd64"}] * len(CONTAINER_HOSTS)
    assert {found["code"] for found in probes(CONTAINER_HOSTS).values()} == {0}
