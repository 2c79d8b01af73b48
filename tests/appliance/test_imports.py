"""Holds design.md's picture of who may import whom, by reading every module of both packages."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Left to right: a part imports only parts of its own group or of groups to its left, and of its own group only itself.
GROUPS = [
    {
        "__init__",
        "arrays",
        "errors",
        "plain_text",
        "correlation",
        "extras",
        "drift_report",
        "trace_context",
        "mqtt_state",
        "signals",
        "systemd",
        "cgroup",
        "memory",
        "ahead",
        "listener",
    },
    {"nofollow"},
    {"config", "settings", "setting_errors", "tokens", "bundle", "budget"},
    {"store", "inference"},
    {"limits", "labels"},
    {"openinference", "trials"},
    {"routing"},
    {"arms"},
    {"repository", "experiment_roles", "pinned"},
    {"readiness"},
    {"alarms"},
    {"fallback"},
    {"predictor"},
    {"response"},
    {"monitoring"},
    {"experiments"},
    {"rest", "mqtt", "batch", "pull"},
    {"service", "processes", "log_parts", "preload", "served_models"},
    {"cli", "__main__"},
]
# Beside each other in a group, and yet one stands on the other.
BESIDE = {
    ("monitoring", "__init__"),
    ("settings", "config"),
    ("settings", "setting_errors"),
    ("setting_errors", "config"),
    ("experiment_roles", "repository"),
    ("repository", "pinned"),
    ("memory", "cgroup"),
    ("service", "log_parts"),
    ("service", "preload"),
    ("service", "served_models"),
    ("served_models", "log_parts"),
    ("cli", "__main__"),
    ("__main__", "cli"),
}
# The rooms of `convert`, left to right; what stands in none of them is the story on top, and may import every room.
ROOMS = ["sources", "model", "converters", "proof"]
# Part -> the only places where a library may be imported.
HOMES = {
    "flask": ("appliance/rest/",),
    "werkzeug": ("appliance/rest/",),
    "waitress": ("appliance/rest/",),
    "paho": ("appliance/mqtt/client.py", "appliance/mqtt/connection.py"),
    "prometheus_client": ("appliance/monitoring/",),
    "onnxruntime": ("appliance/inference/", "appliance/cli/doctor.py"),
    "click": ("appliance/cli/", "convert/"),
    "pyarrow": ("appliance/batch/", "appliance/monitoring/prediction_log/export.py"),
    "ray": ("appliance/batch/cluster.py",),
}
BUILD_MACHINE_ONLY = {
    "convert",
    "sklearn",
    "skl2onnx",
    "onnxmltools",
    "onnx",
    "pandas",
    "joblib",
    "pickle",
    "cloudpickle",
}
NETWORK = {"socket", "ssl", "http", "urllib", "requests", "ftplib", "smtplib", "asyncio", "socketserver", "xmlrpc"}
# These only take addresses apart and put them together.
URL_TEXT = {f"urllib.parse.{name}" for name in ("quote", "unquote", "urlencode", "urljoin", "urlsplit")}
# What reads or writes outside the process, for the modules that only compute.
INPUT_OUTPUT = NETWORK | {"os", "io", "pathlib", "shutil", "tempfile", "mmap", "subprocess", "sqlite3", "logging"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Return the full names of what a module imports, wherever in it; `from a import b` is a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def named_modules(path: Path) -> Iterator[str]:
    """Return the names of our modules that stand as texts in a module, as importlib takes them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text.startswith("convert.") and text.replace(".", "").isidentifier():
            yield text


def part(name: str) -> str:
    """Return the part of `appliance` that a full name is of: `appliance.rest.app.create_app` is of rest."""
    second = name.split(".")[1] if "." in name else "__init__"
    return (
        second
        if (ROOT / "appliance" / second).is_dir() or (ROOT / "appliance" / f"{second}.py").exists()
        else "__init__"
    )


def own_part(path: Path) -> str:
    """Return the part of `appliance` that a module is of."""
    return path.relative_to(ROOT / "appliance").parts[0].removesuffix(".py")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def group(name: str) -> int:
    return next(index for index, parts in enumerate(GROUPS) if name in parts)


def test_every_part_has_its_place_in_the_picture():
    parts = {own_part(path) for path in modules("appliance")}
    assert parts <= set().union(*GROUPS)


@pytest.mark.parametrize("path", modules("appliance"), ids=relative)
def test_imports_point_left(path):
    own = own_part(path)
    for name in imports(path):
        if name.split(".")[0] != "appliance" or (other := part(name)) == own:
            continue
        left = group(other) < group(own)
        assert left or (own, other) in BESIDE, f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", modules("appliance"), ids=relative)
def test_the_device_imports_nothing_of_the_build_machine(path):
    assert not {name.split(".")[0] for name in imports(path)} & BUILD_MACHINE_ONLY


@pytest.mark.parametrize("path", modules("convert"), ids=relative)
def test_the_build_machine_takes_only_the_format_and_the_session_from_the_device(path):
    allowed = (
        "appliance.bundle",
        "appliance.inference",
        "appliance.errors",
        "appliance.plain_text",
        "appliance.extras",
        "appliance.__version__",
    )
    for name in imports(path):
        if name.split(".")[0] == "appliance":
            assert name.startswith(allowed), f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", [path for room in ROOMS for path in modules(f"convert/{room}")], ids=relative)
def test_rooms_of_the_build_machine_import_to_the_left(path):
    allowed = ROOMS[: ROOMS.index(path.relative_to(ROOT).parts[1]) + 1]
    for name in [*imports(path), *named_modules(path)]:
        if name.split(".")[0] == "convert":
            assert name.split(".")[1] in allowed, f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", modules("convert"), ids=relative)
def test_no_module_of_the_build_machine_is_imported_by_a_made_up_name(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            assert isinstance(node.args[0], ast.Constant | ast.Name), f"{relative(path)}: {ast.unparse(node)}"
        if isinstance(node, ast.JoinedStr):
            assert not ast.unparse(node)[2:].startswith("convert."), f"{relative(path)}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", [*modules("appliance"), *modules("convert")], ids=relative)
def test_libraries_stay_in_their_homes(path):
    for name in imports(path):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or relative(path).startswith(homes), f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", modules("appliance/bundle"), ids=relative)
def test_the_bundle_opens_no_network(path):
    assert not {name.split(".")[0] for name in imports(path)} & NETWORK


@pytest.mark.parametrize("path", modules("appliance/pull"), ids=relative)
def test_pulling_knows_http_in_two_places(path):
    opens = {name for name in imports(path) if name.split(".")[0] in NETWORK} - URL_TEXT
    assert not opens or path.name in ("transfer.py", "connection.py")
    assert "socket" not in opens or path.name == "connection.py"


def test_what_only_computes_does_no_input_or_output():
    pure = [
        "inference/tensors.py",
        "openinference/tensors.py",
        "openinference/binary.py",
        "openinference/request.py",
        "openinference/response.py",
        "inference/json_output.py",
        "response.py",
        "routing.py",
        "experiments/evidence.py",
        "experiments/verdict.py",
        "experiments/comparison.py",
        "monitoring/drift.py",
        "monitoring/drift_tables.py",
        "monitoring/drift_judge.py",
        "monitoring/distribution.py",
        "monitoring/history_ring.py",
        "alarms.py",
        "monitoring/open_window.py",
        "monitoring/misra_gries.py",
        "inference/binning.py",
        "inference/quality.py",
        "fallback.py",
        "inference/refusals.py",
        "mqtt/topics.py",
        "mqtt/codec.py",
        "mqtt/windows.py",
        "mqtt/discovery.py",
        "pull/offers.py",
        "pull/oci.py",
    ]
    present = [path for name in pure if (path := ROOT / "appliance" / name).exists()]
    assert present
    for path in present:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not {name.split(".")[0] for name in set(imports(path)) - URL_TEXT} & INPUT_OUTPUT, relative(path)
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"open", "print", "input"}, relative(path)


def test_only_the_service_joins_the_listeners():
    joins = []
    for path in modules("appliance"):
        listeners = {part(name) for name in imports(path) if name.startswith("appliance.")} & {"rest", "mqtt"}
        if len(listeners) == 2:
            joins.append(relative(path))
    assert set(joins) <= {"appliance/service.py"}


def test_the_web_server_knows_no_route():
    known = ("appliance.rest.server", "appliance.rest.problems", "appliance.rest.http_types")
    for path in modules("appliance/rest/server"):
        for name in imports(path):
            assert not name.startswith("appliance.rest") or name.startswith(known), f"{relative(path)} imports {name}"


@pytest.mark.parametrize("room", ["rest", "openinference", "monitoring", "mqtt", "store", "bundle", "experiments"])
def test_no_modules_of_a_room_import_each_other_in_a_circle(room):
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules(f"appliance/{room}")}
    needed = {
        name: {other for one in imports(path) for other in (one, one.rpartition(".")[0]) if other in names} - {name}
        for name, path in names.items()
    }
    while free := [name for name, others in needed.items() if not others & needed.keys()]:
        for name in free:
            del needed[name]
    assert not needed


def test_errors_know_nothing_of_anybody():
    assert list(imports(ROOT / "appliance" / "errors.py")) == []


def test_modules_say_in_their_first_sentence_what_they_know():
    for path in [*modules("appliance"), *modules("convert")]:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert text, relative(path)
        assert len(text.split()) > 3, relative(path)


def test_every_library_of_the_device_is_declared():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = project["dependencies"] + extras["cbor"] + extras["parquet"] + extras["ray"] + extras["sparkplug"]
    declared = {one.split(">")[0].split("[")[0].strip().replace("-", "_") for one in named}
    declared |= {"google"} if "protobuf" in declared else set()
    declared = {"paho" if name == "paho_mqtt" else name for name in declared}
    imported = {name.split(".")[0] for path in modules("appliance") for name in imports(path)}
    # Flask brings Werkzeug, whose types its own application shows.
    assert imported - set(sys.stdlib_module_names) - {"appliance", "werkzeug"} <= declared


def test_modules_of_monitoring_import_each_other_in_one_direction():
    paths = {f"appliance.monitoring.{path.stem}": path for path in modules("appliance/monitoring")}
    above = {
        own: {other for other in paths if any(f"{name}.".startswith(f"{other}.") for name in imports(path))}
        for own, path in paths.items()
    }
    while free := {own for own, others in above.items() if not others & above.keys()}:
        above = {own: others for own, others in above.items() if own not in free}
    assert not above
