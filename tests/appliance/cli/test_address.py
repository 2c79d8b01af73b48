"""Where commands find the service: as --url says, as the running service says, as configured."""

import os
import subprocess
import sys

import pytest

from appliance.cli.address import find
from appliance.config import Config, HttpConfig, StoreConfig
from appliance.errors import Misuse
from appliance.store import running


def config(state_dir, **http) -> Config:
    return Config(http=HttpConfig(**http), store=StoreConfig(state_dir=str(state_dir)))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://10.0.0.5:8081", "http://10.0.0.5:8081"),
        ("http://[::1]:8081/", "http://[::1]:8081"),
        ("press-7.plant.example:9000", "http://press-7.plant.example:9000"),
        ("http://press-7", "http://press-7:80"),
    ],
)
def test_url_is_asked(tmp_path, url, address):
    assert str(find(config(tmp_path), url)) == address


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "http://x:port", "http://x:99999", "http://x/predict", "http://u:p@x", "http://[::1", ""],
)
def test_url_that_names_no_service_is_refused(tmp_path, url):
    with pytest.raises(Misuse, match="http://HOST:PORT"):
        find(config(tmp_path), url)


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.1.2.3", "10.1.2.3")])
def test_running_service_is_found_by_its_state_folder(tmp_path, host, reached):
    configured = config(tmp_path, host="10.9.9.9", port=1)
    assert str(find(configured)) == "http://10.9.9.9:1"
    running.write(tmp_path, running.here(host, 4321))
    assert str(find(configured)) == f"http://{reached}:4321"
    running.remove(tmp_path)
    assert not (tmp_path / "service.json").exists()
    assert str(find(configured)) == "http://10.9.9.9:1"


def test_what_another_process_left_is_not_believed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        running.write(tmp_path, running.Running("127.0.0.1", 4321, ended.pid, "1"))
    assert running.read(tmp_path) is None
    mine = running.here("127.0.0.1", 4321)
    running.write(tmp_path, running.Running("127.0.0.1", 4321, os.getpid(), "1"))  # its number was given out again
    assert running.read(tmp_path) is None
    running.write(tmp_path, mine)
    assert running.read(tmp_path) == mine


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"host": 1}', b'{"host": "x", "port": 0, "pid": 1, "started": "1"}']
)
def test_damaged_file_is_as_none(tmp_path, content):
    (tmp_path / "service.json").write_bytes(content)
    assert running.read(tmp_path) is None


def test_link_or_unwritable_folder_is_as_none(tmp_path):
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / "service.json").symlink_to(tmp_path / "other")
    assert running.read(tmp_path) is None
    running.write(tmp_path / "absent", running.here("127.0.0.1", 1))
    assert (tmp_path / "other").read_bytes() == b"kept"
