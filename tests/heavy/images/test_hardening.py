"""What the image does under the limits that it is made for; for this host's processor."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import FLOWERS, ask, docker, free_port, wait_for
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

ROW = {"features": FLOWERS[0]}


def test_it_refuses_an_open_port_that_nobody_said_yes_to(image):
    ended = docker("run", "--rm", image, check=False)
    assert ended.returncode == 2
    assert "no token is needed" in ended.stderr


def test_it_serves_within_128_mib_of_memory_and_half_a_processor(start, preloaded, open_port):
    limits = ("--memory=128m", "--memory-swap=128m", "--cpus=0.5")
    container = start(*preloaded, *open_port, *limits).ready()
    rows = {"features": FLOWERS * 3000}  # a body that is larger than what is held in memory while it comes in
    for _ in range(5):
        assert ask(f"{container.url}/predict", rows)[0] == 200
    assert container.inspect("{{.State.OOMKilled}}") == "false"
    assert container.is_ready()


def test_it_runs_as_any_user_of_group_0_and_as_any_user_with_a_folder_of_its_own(
    start, preloaded, open_port, expected, tmp_path
):
    of_group_0 = start(*preloaded, *open_port, "--user=54321:0").ready()
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 4321, 4321)
    alone = start(*preloaded, *open_port, "--user=4321:4321", f"--volume={tmp_path}:/var/lib/appliance").ready()
    for container in (of_group_0, alone):
        assert ask(f"{container.url}/predict", ROW)[1]["prediction"] == expected["prediction"][:1]
    assert (tmp_path / "models/iris/activation.json").stat().st_uid == 4321


def test_it_works_without_any_network(start, preloaded, expected):
    container = start(*preloaded, "--network=none", "--env=APPLIANCE_HTTP_HOST=127.0.0.1").ready()
    code = (
        "import json, urllib.request as u; "
        f"print(u.urlopen('http://127.0.0.1:8080/predict', json.dumps({ROW!r}).encode()).read().decode())"
    )
    assert json.loads(container.run("python", "-c", code).stdout)["prediction"] == expected["prediction"][:1]


def test_what_was_activated_is_served_again_after_a_kill_and_in_the_next_container(start, preloaded, open_port):
    volume = docker("volume", "create").stdout.strip()
    state = f"--volume={volume}:/var/lib/appliance"
    try:
        first = start("--volume=" + preloaded[1].removeprefix("--volume="), *open_port, state)
        wait_for(lambda: ask(f"{first.url}/health/live")[0] == 200, "live")
        first.run("appliance", "install", "/bundles/iris-1.0.0.bundle")
        first.run("appliance", "install", "/bundles/iris-2.0.0.bundle")
        first.run("appliance", "activate", "iris", "1.0.0")
        first.run("appliance", "activate", "iris", "2.0.0")
        wait_for(lambda: ask(f"{first.url}/predict", ROW)[1].get("version") == "2.0.0", "switched")
        docker("kill", first.id)
        docker("start", first.id)
        first.ready()
        assert ask(f"{first.url}/predict", ROW)[1]["version"] == "2.0.0"
        docker("kill", first.id)
        second = start(*open_port, state).ready()
        assert ask(f"{second.url}/predict", ROW)[1]["version"] == "2.0.0"
        docker("rm", "--force", first.id, second.id)
    finally:
        docker("volume", "rm", "--force", volume)


def test_sigterm_ends_it_cleanly(start, preloaded, open_port):
    container = start(*preloaded, *open_port).ready()
    docker("stop", "--time=30", container.id)
    assert container.inspect("{{.State.ExitCode}}") == "0"
    assert "stopped" in container.log()


def test_nothing_but_the_state_folder_is_written(start, preloaded, open_port):
    """Without --read-only, so that what wants to write can, and would be seen."""
    container = start("--read-only=false", *preloaded, *open_port).ready()
    assert ask(f"{container.url}/predict", {"features": FLOWERS * 3000})[0] == 200
    changed = [line[2:] for line in docker("diff", container.id).stdout.splitlines()]
    # The engine itself makes these: where it mounts the bundles.
    assert [path for path in changed if not path.startswith(("/opt/ml", "/bundles")) and path != "/opt"] == []


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """Run a mosquitto on loopback; its port."""
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([mosquitto, "-c", str(config)], stderr=subprocess.DEVNULL)
    yield port
    process.terminate()
    process.wait(10)


def test_it_answers_over_mqtt(start, preloaded, broker, expected, tmp_path):
    config = tmp_path / "appliance.toml"
    config.write_text(
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker}\n'
        '[[mqtt.subscriptions]]\ntopic = "flowers/+"\nmodel = "iris"\nanswer = "answers/{1}"\n'
    )
    own = (f"--volume={config}:/etc/appliance.toml:ro", "--env=APPLIANCE_CONFIG=/etc/appliance.toml", "--network=host")
    http = (f"--env=APPLIANCE_HTTP_PORT={free_port()}", "--env=APPLIANCE_HTTP_HOST=127.0.0.1")
    start(*preloaded, *own, *http).ready()
    answers: list[dict[str, object]] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: answers.append(json.loads(message.payload))
    client.connect("127.0.0.1", broker)
    client.subscribe("answers/#", qos=1)
    client.loop_start()
    try:

        def answered() -> object:
            client.publish("flowers/1", json.dumps(FLOWERS[0]), qos=1).wait_for_publish(10)
            time.sleep(0.5)
            return answers

        wait_for(answered, "answered")
    finally:
        client.loop_stop()
        client.disconnect()
    assert expected["prediction"][0] in json.dumps(answers[0])


def test_it_takes_at_most_a_quarter_more_than_base_onnxruntime_and_numpy(image):
    site = Path(next(path for path in sys.path if path.endswith("site-packages")))
    folders = [folder for name in ("onnxruntime", "numpy", "numpy.libs") for folder in site.glob(name)]
    installed = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    sizes = docker("image", "inspect", "--format={{.Size}}", os.environ["IMAGE_BASE"], image).stdout.split()
    base, whole = map(int, sizes)
    print(f"base {base / 1e6:.0f} MB, ours {(whole - base) / 1e6:.0f} MB, together {whole / (base + installed):.2f}")
    assert whole <= 1.25 * (base + installed)


def test_it_holds_no_compiler_no_cache_and_nothing_of_the_build_machine(start, preloaded, open_port):
    container = start(*preloaded, *open_port, "--user=0")
    look = (
        "command -v gcc cc clang; ls -d /root/.cache /build; ls /opt/appliance/bin /opt/appliance/lib/*/site-packages"
    )
    found = set(container.run("sh", "-c", look).stdout.split())
    assert not {"/usr/bin/gcc", "/usr/bin/cc", "/usr/bin/clang", "/root/.cache", "/build"} & found
    assert not {"pip", "setuptools", "convert", "sklearn", "onnx", "pandas"} & found
    assert {"appliance", "onnxruntime", "numpy"} <= found
