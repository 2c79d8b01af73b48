"""TLS on the port itself: versions, bodies of any size, certificates that change, clients without one."""

import http.client
import json
import os
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from appliance.cli import appliance as command
from appliance.config import HttpConfig
from appliance.errors import ConfigError
from appliance.rest.server import tls
from tests.certificates import make_certificate

ROW = [1, 2, 3, 4]


@pytest.fixture
def secured(tmp_path, start_service):
    """Return a function that starts a service with TLS: secured(**http settings) -> Running."""
    make_certificate(tmp_path)

    def start(**settings):
        files = {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")}
        return start_service(("iris", "1.0.0", "labels"), **{**files, **settings})

    return start


def trusting(folder: Path, name: str = "server") -> ssl.SSLContext:
    """Return a client's context that trusts one certificate."""
    return ssl.create_default_context(cafile=str(folder / f"{name}.pem"))


def ask(port: int, context: ssl.SSLContext, body: object = None, path: str = "/models/iris/predict"):
    """Return (status, JSON) of one request on a connection of its own."""
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body or {"features": ROW}))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_are_answered_over_tls(secured, tmp_path, version):
    context = trusting(tmp_path)
    context.minimum_version = context.maximum_version = version
    running = secured()
    assert ask(running.port, context)[0] == 200
    connection = http.client.HTTPSConnection("localhost", running.port, context=context, timeout=30)
    for _ in range(3):  # one connection, kept open
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().read() == b'{"live":true}'
    connection.close()


def test_older_versions_of_tls_are_refused(secured, tmp_path):
    context = trusting(tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        ask(secured().port, context)


def test_large_bodies_and_answers_pass_whole(secured, tmp_path):
    running, context = secured(processes=1), trusting(tmp_path)
    rows = np.random.default_rng(0).random((20_000, 4)).astype(np.float32).astype(float).tolist()

    def labels(first: int) -> list:
        status, answer = ask(running.port, context, {"features": rows[first:]})
        assert status == 200
        return answer["prediction"]

    with ThreadPoolExecutor(4) as pool:  # read by the loop, answered by threads
        whole, *parts = pool.map(labels, (0, 5_000, 10_000, 15_000))
    assert [len(whole), *map(len, parts)] == [20_000, 15_000, 10_000, 5_000]
    assert all(part == whole[-len(part) :] for part in parts)


def test_pipelined_requests_in_small_records_are_answered_in_order(secured, tmp_path):
    running, context = secured(), trusting(tmp_path)
    body = b'{"features": [1, 2, 3, 4]}'
    head = b"POST /models/iris/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    plain = socket.create_connection(("localhost", running.port), 30)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        content = (head + body) * 40
        for place in range(0, len(content), 7):  # a record each
            client.sendall(content[place : place + 7])
        received = b""
        while received.count(b'"version":"1.0.0"}') < 40:
            received += client.recv(65536)
    assert received.count(b"HTTP/1.1 200 OK") == 40


def test_certificate_is_read_again_when_its_files_change(secured, tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    running = secured()
    old = trusting(tmp_path)
    (tmp_path / "server.key").write_text("no key")
    assert ask(running.port, old)[0] == 200  # the old one stays in force
    make_certificate(tmp_path)
    assert ask(running.port, trusting(tmp_path))[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(running.port, old)


def test_certificate_is_read_again_on_sighup(secured, tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "LOOK_SECONDS", 3600.0)
    running = secured()
    old = trusting(tmp_path)
    make_certificate(tmp_path)
    assert ask(running.port, old)[0] == 200
    running.service.http.reload()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            assert ask(running.port, trusting(tmp_path))[0] == 200
            return
        except ssl.SSLCertVerificationError:
            time.sleep(0.05)
    pytest.fail("never read again")


def test_clients_need_a_certificate_where_an_authority_is_named(secured, tmp_path):
    authority = make_certificate(tmp_path, "authority")
    make_certificate(tmp_path, "client", authority=authority)
    make_certificate(tmp_path, "stranger")
    running = secured(client_ca=str(tmp_path / "authority.pem"))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(running.port, trusting(tmp_path))
    stranger = trusting(tmp_path)
    stranger.load_cert_chain(tmp_path / "stranger.pem", tmp_path / "stranger.key")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(running.port, stranger)
    known = trusting(tmp_path)
    known.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    assert ask(running.port, known)[0] == 200


def test_who_speaks_no_tls_is_told(secured):
    with socket.create_connection(("127.0.0.1", secured().port), 30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"https://" in answer


def test_bad_and_slow_handshakes_end_and_others_are_served(secured, tmp_path):
    running = secured(request_timeout=0.5)
    silent = [socket.create_connection(("127.0.0.1", running.port), 30) for _ in range(20)]
    for index, client in enumerate(silent[5:]):
        client.sendall(b"\x16\x03\x01" + os.urandom(40 + index))
    assert ask(running.port, trusting(tmp_path))[0] == 200
    for client in silent:  # a reset is an end too
        try:
            while client.recv(4096):
                pass
        except ConnectionError:
            pass
        client.close()
    assert ask(running.port, trusting(tmp_path))[0] == 200


def test_service_stops_though_a_handshake_is_unfinished(secured):
    running = secured()
    with socket.create_connection(("127.0.0.1", running.port), 30):
        began = time.monotonic()
        running.close()
        assert time.monotonic() - began < 10  # drain_timeout is 20


def test_answer_that_is_being_computed_is_sent_before_the_service_stops(secured, tmp_path):
    running, context = secured(), trusting(tmp_path)
    rows = {"features": np.ones((20_000, 4)).tolist()}
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(running.port, context, rows)[0]))
    asking.start()
    deadline = time.monotonic() + 20
    while not running.service.http.server.active_channels and time.monotonic() < deadline:
        time.sleep(0.001)
    while any(one.handshaking for one in running.service.http.server.active_channels.values()):
        time.sleep(0.001)
    running.close()
    asking.join(30)
    assert answers == [200]


def test_commands_ask_over_tls(secured, tmp_path):
    running = secured()
    known = {"APPLIANCE_STATE_DIR": str(running.store.state_dir), "APPLIANCE_HTTP_PORT": "1"}
    files = {
        "APPLIANCE_HTTP_CERTIFICATE": str(tmp_path / "server.pem"),
        "APPLIANCE_HTTP_KEY": str(tmp_path / "server.key"),
    }
    result = CliRunner().invoke(command, ["status", "--ready", "--json"], env=known | files)
    assert (result.exit_code, json.loads(result.stdout)["url"]) == (0, f"https://127.0.0.1:{running.port}/health/ready")
    assert CliRunner().invoke(command, ["probe", "iris", "--wait", "0"], env=known | files).exit_code == 0
    url = ["--url", f"https://localhost:{running.port}"]
    untrusted = CliRunner().invoke(command, ["status", "--ready", *url], env=known | files)
    assert (untrusted.exit_code, "certificate verify failed" in untrusted.stdout) == (1, True)
    trusted = known | {"SSL_CERT_FILE": str(tmp_path / "server.pem")}
    assert CliRunner().invoke(command, ["status", "--ready", *url], env=trusted).exit_code == 0
    unset = CliRunner().invoke(command, ["status", "--ready"], env=known)
    assert unset.exit_code == 0, unset.stdout  # the running service tells which certificate it has
    make_certificate(tmp_path, "other")
    other = files | {"APPLIANCE_HTTP_CERTIFICATE": str(tmp_path / "other.pem"), "APPLIANCE_HTTP_KEY": ""}
    assert CliRunner().invoke(command, ["status", "--ready"], env=known | other).exit_code == 1


@pytest.mark.parametrize("wrong", ["absent", "no certificate", "another's key", "locked key", "no authority"])
def test_files_that_make_no_certificate_are_refused_at_start(tmp_path, wrong):
    _, key = make_certificate(tmp_path)
    files = {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")}
    if wrong == "absent":
        files["certificate"] = str(tmp_path / "absent.pem")
    elif wrong == "no certificate":
        (tmp_path / "server.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n")
    elif wrong == "another's key":
        make_certificate(tmp_path, "other")
        files["key"] = str(tmp_path / "other.key")
    elif wrong == "locked key":
        locked = serialization.BestAvailableEncryption(b"secret")
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        (tmp_path / "server.key").write_bytes(pem)
    else:
        files["client_ca"] = str(tmp_path / "server.key")
    with pytest.raises(ConfigError, match=r"\[http\] "):
        tls.Certificates(HttpConfig(**files))
