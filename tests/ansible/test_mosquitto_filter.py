"""A file of users that we wrote is one that a real mosquitto takes."""

import subprocess

from tests.ansible.plugins import plugin

mosquitto_hash = plugin("filter", "mosquitto").mosquitto_hash


def test_the_same_word_gives_the_same_hash_on_one_host_and_another_elsewhere():
    assert mosquitto_hash("word", "line", "h1") == mosquitto_hash("word", "line", "h1")
    others = {
        mosquitto_hash("word", "line", "h2"),
        mosquitto_hash("word", "plc", "h1"),
        mosquitto_hash("w", "line", "h1"),
    }
    assert len({mosquitto_hash("word", "line", "h1"), *others}) == 4


def publish(port: int, password: str) -> int:
    line = ["mosquitto_pub", "-p", str(port), "-u", "line", "-P", password, "-t", "t", "-m", "m"]
    return subprocess.run(line, capture_output=True, check=False, timeout=60).returncode


def test_mosquitto_lets_in_who_has_the_password_and_nobody_else(start_broker, tmp_path):
    users = tmp_path / "users"
    users.write_text(f"line:{mosquitto_hash('right', 'line', 'h1')}\n")
    broker = start_broker("broker", f"password_file {users}")
    assert publish(broker.port, "right") == 0
    assert publish(broker.port, "wrong") == 5  # not authorised
