import json
import os
import platform
import re
import socket
import ssl
import subprocess
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from appliance import __version__, cgroup
from appliance.bundle import keys
from appliance.cli import appliance as command
from appliance.cli import doctor
from appliance.config import Config, HttpConfig, ModelsConfig, MqttConfig
from appliance.experiments import control
from appliance.inference.selftest import self_test
from appliance.store import activation, experiments, trials
from appliance.store.versions import Store

CHECKS = [
    "python", "onnxruntime", "openssl", "telemetry", "processor", "glibc", "state folder", "disk", "state mount",
    "temp mount", "trusted keys", "settings", "port", "broker", "memory limit", "versions", "experiments",
    "processors",
]  # fmt: skip


@pytest.fixture
def config():
    return Config(http=HttpConfig(port=0))


def test_doctor_and_status_tell_what_an_active_version_needs(tmp_path, make_bundle):
    environment = {"APPLIANCE_STATE_DIR": str(tmp_path / "state"), "APPLIANCE_HTTP_PORT": "0"}
    for arguments in (["install", str(make_bundle(tmp_path))], ["activate", "iris", "1.0.0"]):
        assert CliRunner().invoke(command, arguments, env=environment).exit_code == 0
    store = Store(tmp_path / "state")
    measured = trials.read(store.models_dir / "iris")["1.0.0"]
    assert 0 < measured.memory_bytes < 64 * 2**20
    finding = doctor.check_versions(store, 2**30)
    assert (finding.state, "iris 1.0.0" in finding.found, "MiB" in finding.found) == ("ok", True, True)
    assert doctor.check_versions(store, 128 * 2**20).state == "warn"
    assert " MiB, loads in " in CliRunner().invoke(command, ["status"], env=environment).stdout


def test_experiments_that_run_are_named(tmp_path, make_bundle):
    store = Store(tmp_path / "state")
    assert doctor.check_experiments(store).found == "none runs"
    for version in ("1.0.0", "2.0.0"):
        store.install(make_bundle(tmp_path, version=version))
    activation.activate(store, "iris", "1.0.0", self_test)
    made = experiments.begin(store, "iris", control.canary("2.0.0"), self_test)
    found = doctor.check_experiments(store)
    assert (found.state, found.found) == ("ok", f"iris, canary {made.id} of 2.0.0")
    (store.folder("iris", "2.0.0") / "model.onnx").write_bytes(b"")
    found = doctor.check_experiments(store)
    assert (found.state, found.next) == ("fail", "appliance abort iris")


def test_every_check_gives_a_line_and_fails_come_with_what_to_do(tmp_path):
    environment = {"APPLIANCE_STATE_DIR": str(tmp_path / "state"), "APPLIANCE_HTTP_PORT": "0"}
    result = CliRunner().invoke(command, ["doctor", "--json"], env=environment)
    document = json.loads(result.stdout)
    assert [check["check"] for check in document["checks"]] == CHECKS
    assert all(check["next"] for check in document["checks"] if check["state"] != "ok")
    assert document["ok"] is (result.exit_code == 0)
    text = CliRunner().invoke(command, ["doctor"], env=environment).stdout
    assert all(name in text for name in CHECKS)


def test_a_failing_check_ends_with_exit_code_1(tmp_path):
    (tmp_path / "file").write_text("x")
    environment = {"APPLIANCE_STATE_DIR": str(tmp_path / "file"), "APPLIANCE_HTTP_PORT": "0"}
    result = CliRunner().invoke(command, ["doctor"], env=environment)
    assert result.exit_code == 1
    assert "fail state folder" in result.stdout
    assert "-> name another by --state-dir" in result.stdout


@pytest.mark.parametrize(
    ("name", "number", "state"),
    [
        ("OpenSSL 1.1.1w  11 Sep 2023", (1, 1), "warn"),
        ("OpenSSL 3.0.20", (3, 0), "ok"),
        ("OpenSSL 3.5.7", (3, 5), "ok"),
    ],
)
def test_an_openssl_that_its_authors_no_longer_support_is_told(name, number, state):
    finding = doctor.check_openssl(name, number)
    assert (finding.state, finding.found) == (state, name)


def test_version_tells_what_it_stands_on():
    lines = CliRunner().invoke(command, ["--version"]).stdout.splitlines()
    assert lines == [f"appliance, version {__version__}", f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"]


def test_a_port_in_use_by_another_program_fails():
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.1)
        finding = doctor.check_port(Config(http=HttpConfig(port=other.getsockname()[1])))
    assert finding.state == "fail"
    assert "cannot be bound" in finding.found


@pytest.fixture
def small_broker(start_broker):
    return start_broker("small", "max_queued_messages 10", "max_inflight_messages 5", "sys_interval 1")


def mosquitto(program, broker, *words, **more):
    line = [f"mosquitto_{program}", "-p", str(broker.port), "-q", "1", *words]
    subprocess.run(line, check=True, capture_output=True, timeout=60, **more)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_has_dropped_messages_is_told(small_broker, protocol, until):
    mosquitto("sub", small_broker, "-i", "away", "-c", "-t", "line/#", "-E")
    config = MqttConfig(host=small_broker.host, port=small_broker.port, protocol=protocol)
    until(lambda: "has no dropped messages" in doctor.check_broker(config).found, "told of none dropped")
    mosquitto("pub", small_broker, "-t", "line/1", "-l", input=b"m\n" * 100)
    finding = until(lambda: (found := doctor.check_broker(config)).state == "warn" and found, "warned")
    assert "mosquitto version 2" in finding.found
    assert re.search(r"has dropped (8|9)\d messages", finding.found)
    assert "max_queued_messages" in finding.next


def test_asking_a_broker_leaves_no_session_there(small_broker, until):
    config = MqttConfig(host=small_broker.host, port=small_broker.port, protocol="3.1.1")
    until(lambda: doctor.check_broker(config).state == "ok", "answered")
    shown = subprocess.run(
        [
            "mosquitto_sub",
            "-p",
            str(small_broker.port),
            "-t",
            "$SYS/broker/clients/disconnected",
            "-C",
            "1",
            "-W",
            "10",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "0"


def test_a_broker_that_is_away_is_told_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    finding = doctor.check_broker(MqttConfig(host="127.0.0.1", port=port))
    assert finding.state == "warn"
    assert "refused" in finding.found


def test_a_free_port_is_well_and_an_address_of_another_host_fails(config):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    assert doctor.check_port(Config(http=HttpConfig(port=port))).state == "ok"
    assert doctor.check_port(config).state == "ok"
    assert doctor.check_port(Config(http=HttpConfig(host="192.0.2.1", port=port))).state == "fail"


@pytest.mark.parametrize(
    ("name", "number", "state"),
    [
        ("glibc", "2.28", "ok"),
        ("glibc", "2.36", "ok"),
        ("glibc", "2.27", "fail"),
        ("glibc", "3.0", "ok"),
        ("", "", "fail"),
    ],
)
def test_glibc_below_the_wheels_floor_fails(name, number, state):
    assert doctor.check_glibc(name, number).state == state


def test_a_processor_without_vector_extensions_is_a_warning(tmp_path):
    old = tmp_path / "cpuinfo"
    old.write_text("model name: Old\nflags: fpu sse2\n")
    assert doctor.check_processor(old).state == "warn"
    old.write_text("CPU part: 0xd03\nFeatures: fp asimd\n")
    assert doctor.check_processor(old).state == "ok"


def test_a_state_folder_open_to_everyone_fails(tmp_path):
    state = tmp_path / "state"
    assert "the first install makes it" in doctor.check_state_folder(state).found
    state.mkdir(mode=0o750)
    assert doctor.check_state_folder(state).state == "ok"
    state.chmod(0o777)
    finding = doctor.check_state_folder(state)
    assert (finding.state, finding.next) == ("fail", f"chmod 750 {state}")


def test_telemetry_that_was_switched_on_again_fails(monkeypatch):
    assert doctor.check_telemetry().state == "ok"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert doctor.check_telemetry().state == "fail"


def test_little_memory_warns_and_too_little_fails():
    assert doctor.check_memory(None).state == "ok"
    assert doctor.check_memory(2**30).state == "ok"
    assert doctor.check_memory(128 * 2**20).state == "warn"
    assert doctor.check_memory(64 * 2**20).state == "fail"


def test_more_threads_than_processors_is_a_warning():
    many = Config(http=HttpConfig(processes=2), models=ModelsConfig(threads=64))
    assert doctor.check_processors(None, many).state == "warn"
    assert doctor.check_processors(0.5, Config()).state == "ok"
    assert doctor.check_processors(0.5, Config(http=HttpConfig(processes=2))).state == "warn"


def test_a_noexec_mount_is_told_and_matters_only_where_others_run_things(monkeypatch, tmp_path):
    """Mounting needs rights that a test has not; the answer of statvfs(3) is changed instead."""
    assert doctor.check_noexec("temp mount", tmp_path).state == "ok"
    answer = SimpleNamespace(f_flag=os.ST_NOEXEC)
    monkeypatch.setattr(os, "statvfs", lambda _: answer)
    assert doctor.check_noexec("temp mount", tmp_path).state == "warn"
    assert doctor.check_noexec("state mount", tmp_path).state == "ok"


def put(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cgroup_v2_limits_are_the_tightest_up_the_tree(tmp_path):
    put(
        tmp_path,
        {
            "self": "0::/system.slice/appliance.service\n",
            "fs/system.slice/memory.max": "1073741824\n",
            "fs/system.slice/appliance.service/memory.max": "max\n",
            "fs/system.slice/cpu.max": "max 100000\n",
            "fs/system.slice/appliance.service/cpu.max": "50000 100000\n",
        },
    )
    assert cgroup.limits(tmp_path / "fs", tmp_path / "self") == cgroup.CgroupLimits(2**30, 0.5)


def test_cgroup_v1_limits_are_read_beside_v2(tmp_path):
    put(
        tmp_path,
        {
            "self": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
            "fs/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "fs/memory/docker/abc/memory.limit_in_bytes": "268435456\n",
            "fs/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "150000\n",
            "fs/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            "fs/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "fs/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "fs/unified/cgroup.procs": "",
        },
    )
    assert cgroup.limits(tmp_path / "fs", tmp_path / "self") == cgroup.CgroupLimits(2**28, 1.5)


def test_a_container_that_sees_its_cgroup_as_the_root_finds_its_limits(tmp_path):
    put(tmp_path, {"self": "5:memory:/docker/abc\n", "fs/memory/memory.limit_in_bytes": "268435456\n"})
    assert cgroup.limits(tmp_path / "fs", tmp_path / "self").memory_bytes == 2**28


def test_without_cgroups_there_is_no_limit(tmp_path):
    assert cgroup.limits(tmp_path / "absent", tmp_path / "absent") == cgroup.CgroupLimits(None, None)


def test_trusted_key_that_cannot_be_read_fails_before_an_install_does(tmp_path):
    private, public = keys.generate_key()
    good, wrong = tmp_path / "plant.key.pub", tmp_path / "plant.key"
    good.write_bytes(public)
    wrong.write_bytes(private)
    assert doctor.check_keys([]).state == doctor.check_keys([str(good)]).state == "ok"
    for bad in (wrong, tmp_path / "absent.pub"):
        found = doctor.check_keys([str(good), str(bad)])
        assert (found.state, bool(found.next)) == ("fail", True)
        assert bad.name in found.found or "key" in found.found
