"""What finish.py leaves out of the image is what the service never opens, and archive.py writes what engines read."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "packaging/docker"
EPOCH = 1_700_000_000
LOADS_EVERYTHING = """
import sys, pkgutil, importlib, pathlib
sys.path.insert(0, sys.argv[1])
import finish, appliance, numpy
for module in pkgutil.walk_packages(appliance.__path__, "appliance."):
    importlib.import_module(module.name)
from appliance.inference.session import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2])
session.run(None, {"x": numpy.zeros(1, numpy.float32)})
site = pathlib.Path(numpy.__file__).parents[1]
unused = {file for pattern in finish.UNUSED for found in site.glob(pattern)
          for file in ([found] if found.is_file() else found.rglob("*"))}
used = {pathlib.Path(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
used |= {pathlib.Path(line.split()[-1]) for line in open("/proc/self/maps") if ".so" in line}
print(len(unused), *sorted(map(str, unused & used)))
"""


def test_nothing_that_the_image_lacks_is_opened_by_any_part_of_the_service(tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "test", [x], [y])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "model.onnx")
    command = [sys.executable, "-c", LOADS_EVERYTHING, str(DOCKER), str(tmp_path / "model.onnx")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    count, *opened = ended.stdout.split()
    assert int(count) > 100
    assert opened == []


def finish(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", f"import sys, pathlib, finish; {code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=DOCKER, timeout=60)


def test_a_name_to_leave_out_that_is_no_longer_there_stops_the_build(tmp_path):
    ended = finish("finish.trim(pathlib.Path(sys.argv[1]))", tmp_path)
    assert ended.returncode == 1
    assert "take it out of UNUSED" in ended.stderr


def test_dates_and_modes_do_not_tell_who_built_it_and_when(tmp_path):
    (tmp_path / "bin").mkdir(mode=0o700)
    for name, mode in (("bin/tool", 0o700), ("data", 0o600)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("/nowhere")
    assert finish("finish.date(pathlib.Path(sys.argv[1]))", tmp_path).returncode == 0
    found = {path.name: path.lstat() for path in tmp_path.rglob("*")}
    assert {name: status.st_mode & 0o777 for name, status in found.items() if name != "link"} == {
        "bin": 0o755,
        "tool": 0o755,
        "data": 0o644,
    }
    assert {status.st_mtime for status in found.values()} == {315_532_800}


def layer(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return file.getvalue()


def save(path: Path, architecture: str, created: str, *, packed: bool = False, diff: str = "") -> Path:
    """Write what `docker save` writes of an image with three layers, the last two of them empty."""
    layers = [layer("etc/hosts"), layer(), layer()]
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "container": created,
        "config": {"Healthcheck": {"Test": ["CMD", "x"]}, "Labels": {"org.opencontainers.image.version": "1.2.3"}},
        "history": [{"created": "1970-01-01T00:00:00Z"}, {"created": created, "empty_layer": True}],
        "rootfs": {"type": "layers", "diff_ids": [diff or f"sha256:{sha256(one)}" for one in layers]},
    }
    members = {f"{i}/layer.tar": gzip.compress(one) if packed else one for i, one in enumerate(layers)}
    manifest = [{"Config": "c.json", "RepoTags": [f"image:{architecture}"], "Layers": list(members)}]
    members |= {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), os.getpid()
            tar.addfile(entry, io.BytesIO(content))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(DOCKER / "archive.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def loadable(
    folder: Path, name: str, architecture: str = "amd64", created: str = "2030-01-01T00:00:00Z", **rest
) -> Path:
    saved = save(folder / f"{name}.saved", architecture, created, **rest)
    ended = archive("load", saved, folder / f"{name}.tar.gz", "--epoch", EPOCH)
    assert ended.returncode == 0, ended.stderr
    return folder / f"{name}.tar.gz"


def test_one_image_gives_the_same_bytes_whenever_it_was_built_and_however_it_was_saved(tmp_path):
    first = loadable(tmp_path, "first")
    second = loadable(tmp_path, "second", created="2019-05-05T05:05:05.5Z", packed=True)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        names = tar.getnames()
        (manifest,) = json.load(tar.extractfile("manifest.json"))
        config = tar.extractfile(manifest["Config"]).read()
        assert manifest["Config"] == f"{sha256(config)}.json"
        assert [sha256(tar.extractfile(name).read()) for name in manifest["Layers"]] == [
            digest.removeprefix("sha256:") for digest in json.loads(config)["rootfs"]["diff_ids"]
        ]
    assert len(names) == len(set(names)) == 4
    assert json.loads(config)["created"] == "2023-11-14T22:13:20Z"
    assert "container" not in json.loads(config)


def test_joined_images_are_one_oci_layout_whose_every_digest_is_true(tmp_path):
    sources = [loadable(tmp_path, name, name) for name in ("amd64", "arm64")]
    ended = archive("join", tmp_path / "both.oci.tar", *sources)
    assert ended.returncode == 0, ended.stderr
    with tarfile.open(tmp_path / "both.oci.tar") as tar:
        files = {name: tar.extractfile(name).read() for name in tar.getnames()}
    blobs = {name.rpartition("/")[2]: content for name, content in files.items() if name.startswith("blobs/")}
    assert all(sha256(content) == digest for digest, content in blobs.items())

    def follow(descriptor: dict[str, object]) -> dict[str, object]:
        content = blobs[str(descriptor["digest"]).removeprefix("sha256:")]
        assert len(content) == descriptor["size"]
        return json.loads(content)

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (named,) = json.loads(files["index.json"])["manifests"]
    assert named["annotations"] == {"org.opencontainers.image.ref.name": "1.2.3"}
    both = follow(named)["manifests"]
    assert [one["platform"]["architecture"] for one in both] == ["amd64", "arm64"]
    for one in both:
        manifest = follow(one)
        config = follow(manifest["config"])
        assert config["config"]["Healthcheck"] == {"Test": ["CMD", "x"]}
        unpacked = [gzip.decompress(blobs[layer["digest"].removeprefix("sha256:")]) for layer in manifest["layers"]]
        assert [f"sha256:{sha256(content)}" for content in unpacked] == config["rootfs"]["diff_ids"]


@pytest.mark.parametrize("fault", ["other digest", "cut short", "no archive"])
def test_a_damaged_archive_ends_with_a_message_and_leaves_nothing_of_that_name(tmp_path, fault):
    saved = save(tmp_path / "saved", "amd64", "2030-01-01T00:00:00Z", diff="sha256:00" * (fault == "other digest"))
    if fault != "other digest":
        saved.write_bytes(saved.read_bytes()[:3000] if fault == "cut short" else b"text")
    ended = archive("load", saved, tmp_path / "target.tar.gz", "--epoch", EPOCH)
    assert ended.returncode == 1
    assert ended.stderr.startswith("archive.py: ")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "target.tar.gz").exists()
