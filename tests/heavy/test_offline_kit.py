"""The offline kit on a host of its own, with systemd as PID 1 and neither Python nor a way to the internet.

Run by `make kit-test`, by path: it needs root, a built binary and some minutes. The host is whatever FLEET gives, a
command with four verbs: `up 1`, `ssh h1 COMMAND`, `off h1` (pull the plug) and `on h1`. It is changed for good.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLEET = os.environ["FLEET"]
BINARY = Path(os.environ["BINARY"]).resolve()
APPLIANCE = ROOT / ".venv" / "bin" / "appliance"
PYTHON = ROOT / ".venv" / "bin" / "python"
ROW = '{"features": [6.3, 3.3, 6.0, 2.5]}'
CONFIGURATION = """
[mqtt]
host = "127.0.0.1"

[[mqtt.subscriptions]]
topic = "line/+/features"
answer = "line/{1}/prediction"
"""

Kit = Callable[..., str]


def fleet(*words: str, **rest: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([FLEET, *words], check=True, capture_output=True, timeout=600, **rest)


def host(command: str, *, check: bool = True, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run a shell command on the host."""
    done = subprocess.run([FLEET, "ssh", "h1", command], input=given, capture_output=True, check=False, timeout=300)
    text = subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert not check or text.returncode == 0, f"{command}\n{text.stdout}{text.stderr}"
    return text


def predict() -> dict:
    """Ask over REST, waiting a little for a service that has just started."""
    asked = f"curl -sf --retry 40 --retry-all-errors --retry-delay 1 http://127.0.0.1:8080/predict -d '{ROW}'"
    return json.loads(host(asked).stdout)


def shown(unit_property: str) -> str:
    return host(f"systemctl show -P {unit_property} appliance").stdout.strip()


def running_version() -> str:
    return host("appliance --version").stdout.split()[2]


@pytest.fixture(scope="session", autouse=True)
def machine(bundles) -> None:
    """A host that has no Python, and the bundles in its /root."""
    fleet("up", "1")
    host("rm -rf /usr/bin/python3* /usr/lib/python3*; ! command -v python3")
    for bundle in bundles.glob("*.bundle"):
        host(f"cat > /root/{bundle.name}", given=bundle.read_bytes())


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> Path:
    """A folder with two pairs of keys, plant and other; their public halves are in the host's /root as well."""
    where = tmp_path_factory.mktemp("keys")
    for name in ("plant", "other"):
        subprocess.run([APPLIANCE, "keygen", where / name, "--no-password"], check=True, capture_output=True)
        host(f"cat > /root/{name}.pub", given=(where / f"{name}.pub").read_bytes())
    return where


@pytest.fixture(scope="session")
def kit(tmp_path_factory, keys, bundles) -> Kit:
    """Return a function that makes a signed kit and unpacks it on the host: make(version) -> its folder there.

    One binary serves for all: its version stands in the distribution's metadata alone.
    """
    made: dict[str, str] = {}

    def make(version: str) -> str:
        if version in made:
            return made[version]
        where = tmp_path_factory.mktemp("kit")
        shutil.copytree(BINARY, where / "out", symlinks=True)
        metadata = next(
            (where / "out" / "appliance" / "_internal").glob("edge_inference_appliance-*.dist-info/METADATA")
        )
        lines = metadata.read_text().splitlines(keepends=True)
        metadata.write_text("".join(f"Version: {version}\n" if one.startswith("Version: ") else one for one in lines))
        tools = {"KEY": str(keys / "plant"), "APPLIANCE": str(APPLIANCE), "APPLIANCE_PYTHON": str(PYTHON)}
        line = ["sh", ROOT / "packaging/offline/kit.sh", where / "out", where, bundles / "iris-1.0.0.bundle"]
        subprocess.run(line, check=True, env=os.environ | tools, capture_output=True)
        archive = next(where.glob("*.tar.gz"))
        place = f"/media/{len(made)}"
        host(f"mkdir -p {place} && tar -xzf - --strip-components=1 -C {place}", given=archive.read_bytes())
        made[version] = place
        return place

    return make


@pytest.fixture
def clean(kit) -> Iterator[None]:
    """A host without the appliance, before and after."""
    uninstall = f"sh {kit('0.1.0')}/install.sh --uninstall --purge"
    host(uninstall)
    yield
    host(uninstall)


@pytest.fixture
def installed(clean, kit) -> None:
    """The appliance 0.1.0 on the host, with the model of its kit."""
    host(f"sh {kit('0.1.0')}/install.sh --key /root/plant.pub")


def test_check_changes_nothing(clean, kit):
    look = "find /opt /etc /var/lib /usr/local | sort | sha256sum; id appliance 2>&1 || true"
    before = host(look).stdout
    assert "ready to install" in host(f"sh {kit('0.1.0')}/install.sh --check --key /root/plant.pub").stdout
    assert host(look).stdout == before


def test_kit_installs_a_service_that_predicts_from_a_read_only_noexec_stick(clean, kit):
    stick = kit("0.1.0")
    host(
        f"mount --bind {stick} /mnt && mount -o remount,bind,ro,noexec /mnt && sh /mnt/install.sh --key /root/plant.pub"
    )
    host("umount /mnt")
    assert predict() == {**predict(), "prediction": ["virginica"], "model": "iris", "version": "1.0.0"}
    assert shown("ActiveState") == "active"
    assert shown("Type") == "notify"
    assert host("appliance status --ready").returncode == 0
    assert json.loads(host("appliance probe iris --json").stdout)["failures"] == 0
    assert json.loads(host("appliance doctor --json").stdout)["ok"] is True


def test_what_pulls_is_there_and_nobody_starts_it(installed):
    assert host("systemctl is-enabled appliance-pull.timer", check=False).stdout.strip() == "disabled"
    assert host("systemctl is-active appliance-pull.timer appliance-pull.service", check=False).stdout.split() == [
        "inactive",
        "inactive",
    ]
    known = host(
        "systemd-analyze verify appliance.service appliance-pull.service appliance-pull.timer"
        " appliance-score@line.service appliance-score@line.timer 2>&1",
        check=False,
    )
    assert "appliance" not in known.stdout, known.stdout
    assert host("appliance pull --help").returncode == 0


def test_second_run_leaves_the_running_service_alone(installed, kit):
    pid = shown("MainPID")
    host(f"sh {kit('0.1.0')}/install.sh")
    assert shown("MainPID") == pid


def test_service_is_confined(installed):
    score = host("systemd-analyze security --no-pager appliance").stdout.splitlines()[-1]
    assert float(score.split("appliance.service: ")[1].split()[0]) <= 2.0
    status = host(f"cat /proc/{shown('MainPID')}/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert host(f"stat -c %U /proc/{shown('MainPID')}").stdout.strip() == "appliance"


def test_model_with_several_threads_and_processes_runs_confined(installed):
    host("printf '[http]\\nprocesses = 2\\n[models]\\nthreads = 2\\n' > /etc/appliance/appliance.toml")
    host("systemctl restart appliance")
    assert predict()["prediction"] == ["virginica"]
    # Of its own processes: systemd's lines about them may tell of the cgroups of this lab.
    said = host("journalctl -q _SYSTEMD_UNIT=appliance.service -n 20 --output cat").stdout.lower()
    assert "listening" in said
    assert "error" not in said


def test_service_predicts_over_mqtt(installed):
    host("systemctl start mosquitto; cat > /etc/appliance/appliance.toml", given=CONFIGURATION.encode())
    host("systemctl restart appliance")
    assert predict()["version"] == "1.0.0"
    row = json.dumps(json.loads(ROW)["features"])
    ask = f"sleep 1; mosquitto_pub -h 127.0.0.1 -q 1 -t line/7/features -m '{row}'"
    answer = host(f"({ask}) & timeout 60 mosquitto_sub -h 127.0.0.1 -q 1 -t line/7/prediction -C 1").stdout
    assert json.loads(answer)["prediction"] in ("virginica", ["virginica"])


def test_service_comes_back_after_a_power_cut(installed):
    fleet("off", "h1")
    fleet("on", "h1")
    assert predict()["version"] == "1.0.0"


def test_killed_service_is_started_again(installed):
    pid = shown("MainPID")
    host(f"kill -KILL {pid}")
    assert predict()["version"] == "1.0.0"
    assert shown("MainPID") != pid


def test_hanging_service_is_started_again_by_the_watchdog(installed):
    host("mkdir -p /etc/systemd/system/appliance.service.d && cat > /etc/systemd/system/appliance.service.d/test.conf",
         given=b"[Service]\nWatchdogSec=3\nTimeoutAbortSec=2\n")  # fmt: skip
    host("systemctl daemon-reload && systemctl restart appliance")
    pid = shown("MainPID")
    time.sleep(6)  # two periods: fed, it stays
    assert shown("MainPID") == pid
    host(f"kill -STOP {pid}")
    assert predict()["version"] == "1.0.0"
    assert shown("MainPID") != pid
    host("rm -r /etc/systemd/system/appliance.service.d && systemctl daemon-reload")


def test_upgrade_downgrade_and_rollback_keep_models_and_settings(installed, kit):
    host("printf '[http]\\nport = 8080\\n# mine\\n' > /etc/appliance/appliance.toml")
    host("appliance install /root/iris-2.0.0.bundle && appliance activate iris 2.0.0")
    for step, version in (("0.2.0", "0.2.0"), ("0.1.0", "0.1.0"), ("", "0.2.0")):
        host(f"sh {kit(step)}/install.sh" if step else "sh /opt/appliance/current/install.sh --rollback")
        assert running_version() == version
        assert predict()["version"] == "2.0.0"  # a kit's bundle is activated once, never again
        assert "# mine" in host("cat /etc/appliance/appliance.toml").stdout


@pytest.mark.parametrize(
    "harm",
    [
        "printf X | dd of={}/program.tar bs=1 seek=5000000 conv=notrunc status=none",
        "rm {}/appliance.service",
        "cd {} && sed -i s/x86_64/aarch64/ kit.conf && sha256sum $(cut -c 67- SHA256SUMS) > s && mv s SHA256SUMS",
        "cp /root/other.pub /etc/appliance/kit.pub",
        "rm {}/model.sig",
    ],
    ids=["flipped byte", "missing file", "wrong architecture", "wrong signature", "no signature"],
)
def test_broken_kit_is_refused_and_the_service_goes_on(installed, kit, harm):
    pid = shown("MainPID")
    host(f"rm -rf /media/bad && cp -a {kit('0.2.0')} /media/bad && {harm.format('/media/bad')}")
    done = host("sh /media/bad/install.sh", check=False)
    host("rm -rf /media/bad")
    assert done.returncode == 3
    assert "nothing was changed" in done.stderr
    assert (shown("MainPID"), running_version()) == (pid, "0.1.0")


def test_version_that_does_not_start_is_taken_back(installed, kit):
    host(f"rm -rf /media/bad && cp -a {kit('0.2.0')} /media/bad")
    # Whole by its sums, unsigned, and it cannot start: a library is gone.
    host(
        "rm /etc/appliance/kit.pub; cd /media/bad && mkdir x && tar -xf program.tar -C x && "
        "rm x/program/_internal/onnxruntime/capi/onnxruntime_pybind11_state*.so && "
        "tar -cf program.tar -C x program && rm -r x && "
        "grep -v onnxruntime_pybind11_state FILES.sha256 > f; mv f FILES.sha256; rm model.sig; "
        "sha256sum $(cut -c 67- SHA256SUMS) > s; mv s SHA256SUMS"
    )
    done = host("sh /media/bad/install.sh", check=False)
    host("rm -rf /media/bad")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the version before runs again" in done.stderr
    assert running_version() == "0.1.0"
    assert predict()["version"] == "1.0.0"


@pytest.mark.parametrize("seconds", [0.6, 1.2, 2.0, 3.0])
def test_power_cut_while_upgrading_leaves_one_version_that_serves(installed, kit, seconds):
    place = kit("0.2.0")
    upgrading = subprocess.Popen([FLEET, "ssh", "h1", f"sh {place}/install.sh"], stdout=-3, stderr=-3)
    time.sleep(seconds)
    fleet("off", "h1")
    upgrading.kill()
    upgrading.wait()
    fleet("on", "h1")
    assert predict()["version"] == "1.0.0"
    assert running_version() in ("0.1.0", "0.2.0")
    host(f"sh {place}/install.sh")
    assert running_version() == "0.2.0"
    assert predict()["version"] == "1.0.0"


def test_nothing_leaves_the_host(installed):
    leaving = f'meta skuid {host("id -u appliance").stdout.strip()} oifname != "lo" counter;'
    rules = f"table inet leaving {{ chain out {{ type filter hook output priority 0; {leaving} }}; }}"
    inside = ["nsenter", "-n", "-t", _pid_on_this_machine(), "nft"]
    subprocess.run([*inside, "-f", "-"], input=rules.encode(), check=True)
    try:
        host("systemctl restart appliance")
        assert predict()["version"] == "1.0.0"
        host("appliance install /root/iris-2.0.0.bundle && appliance activate iris 2.0.0")
        host("sleep 5; appliance rollback iris")
        listed = subprocess.run(
            [*inside, "list", "table", "inet", "leaving"], capture_output=True, text=True, check=True
        )
    finally:
        subprocess.run([*inside, "delete", "table", "inet", "leaving"], check=True)
    assert "packets 0 bytes 0" in listed.stdout


def test_debian_package_installs_upgrades_and_is_purged(clean, bundles, tmp_path):
    subprocess.run(["sh", ROOT / "packaging/debian/deb.sh", BINARY, tmp_path], check=True, capture_output=True)
    host("cat > /root/appliance.deb", given=next(tmp_path.glob("*.deb")).read_bytes())
    host("dpkg -i /root/appliance.deb && appliance install /root/iris-1.0.0.bundle && appliance activate iris 1.0.0")
    assert predict()["prediction"] == ["virginica"]
    assert shown("UnitFileState") == "enabled"
    assert host("systemctl is-active appliance").stdout.strip() == "active"
    pid = shown("MainPID")
    host("dpkg -i /root/appliance.deb")  # as an upgrade
    assert predict()["version"] == "1.0.0"
    assert shown("MainPID") != pid
    host("dpkg --remove edge-inference-appliance && ! systemctl is-active appliance")
    host("[ -d /var/lib/appliance/models/iris ]")
    host("dpkg --purge edge-inference-appliance && [ ! -e /var/lib/appliance ] && ! id appliance")


def _pid_on_this_machine() -> str:
    """Return a process of the host as this machine numbers it: its sshd."""
    identity = host("cat /etc/machine-id").stdout.strip()
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            if name.read_text() == "sshd\n" and (name.parent / "root/etc/machine-id").read_text().strip() == identity:
                return name.parent.name
        except OSError:
            continue
    raise AssertionError(f"no process of the host {identity}")


def test_uninstall_keeps_the_models_and_a_new_installation_finds_them(installed, kit):
    host("sh /opt/appliance/current/install.sh --uninstall")
    host("! command -v appliance && ! systemctl cat appliance && [ ! -e /opt/appliance ]")
    host("[ -d /var/lib/appliance/models/iris ]")
    host(f"sh {kit('0.2.0')}/install.sh")
    assert predict()["version"] == "1.0.0"
    host("sh /opt/appliance/current/install.sh --uninstall --purge")
    host("[ ! -e /var/lib/appliance ] && [ ! -e /etc/appliance ] && ! id appliance")
