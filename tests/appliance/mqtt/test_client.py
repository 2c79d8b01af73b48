"""Whom we talk to: certificates and passwords that are right, and every kind that is wrong; a second kind of broker."""

import asyncio
import datetime
import ipaddress
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from amqtt.broker import Broker as AmqttBroker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import free_port

ROW = [5.1, 3.5, 1.4, 0.2]
PLANT = {"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction"}
EXPECTED = [110.19999694824219]
NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs certificates; files are PEM."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        signed = self._builder(self.name, self.key, 1).add_extension(constraints, critical=True)
        self.file.write_bytes(signed.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        begins, ends = (NOW - datetime.timedelta(days=2), NOW + datetime.timedelta(days=days))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )

    def issue(self, name: str, *, address: str = "127.0.0.1", days: int = 1) -> tuple[Path, Path]:
        """Return the files of a certificate and its key; `days` of validity from now, negative for an expired one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        signed = self._builder(subject, key, days).add_extension(names, critical=False)
        certificate = self.folder / f"{name}.crt"
        certificate.write_bytes(signed.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private = self.folder / f"{name}.key"
        form = serialization.PrivateFormat.PKCS8
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return certificate, private


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def tls_broker(broker, authority):
    """Return a function that starts a broker whose second listener, at the port that it returns, has TLS."""

    def start(certificate: Path, key: Path, *lines: str) -> int:
        broker.stop()
        port = free_port()
        files = [f"cafile {authority.file}", f"certfile {certificate}", f"keyfile {key}"]
        broker.configure(f"listener {port} 127.0.0.1", *files, "allow_anonymous true", *lines)
        broker.start()
        return port

    return start


def is_answered(plain) -> bool:
    """Return whether a message is answered; the plain client goes by the listener without TLS."""
    client = plain("plant/+/prediction")
    client.publish("plant/a/sensors", ROW)
    return client.answers(1)[0]["prediction"] == EXPECTED


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_tls_with_the_right_authority_and_a_client_certificate(listen, plain, tls_broker, authority, protocol):
    port = tls_broker(*authority.issue("broker"), "require_certificate true")
    ours, our_key = authority.issue("appliance")
    files = {"ca_file": str(authority.file), "cert_file": str(ours), "key_file": str(our_key)}
    listen(subscriptions=[PLANT], port=port, tls=True, protocol=protocol, **files).connected()
    assert is_answered(plain)


def test_a_large_message_comes_whole_over_tls(listen, plain, tls_broker, authority):
    port = tls_broker(*authority.issue("broker"))
    listen(subscriptions=[PLANT], port=port, tls=True, ca_file=str(authority.file)).connected()
    client = plain("plant/+/prediction")
    for _ in range(3):
        client.publish("plant/a/sensors", [[0, 0, 0, 0]] * 900 + [ROW] * 100)
    assert [answer["prediction"][-1:] for answer in client.answers(3)] == [EXPECTED] * 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("authority", "self-signed certificate|unable to get local issuer"),
        ("expired", "expired"),
        ("name", "IP address mismatch|doesn't match"),
        ("no TLS", "SSL|EOF|reset"),
        ("client", "alert|closed|reset|EOF|ended"),
    ],
)
def test_a_broker_that_cannot_prove_itself_is_refused(
    listen, tls_broker, tmp_path, authority, broker, until, wrong, words
):
    other = Authority(tmp_path, "other")
    certificate = {
        "authority": lambda: other.issue("broker"),
        "expired": lambda: authority.issue("broker", days=-1),
        "name": lambda: authority.issue("broker", address="127.0.0.9"),
    }.get(wrong, lambda: authority.issue("broker"))()
    port = tls_broker(*certificate, *(["require_certificate true"] if wrong == "client" else []))
    running = listen(
        subscriptions=[PLANT], port=broker.port if wrong == "no TLS" else port, tls=True, ca_file=str(authority.file)
    )
    link = running.listener._links[0]
    until(lambda: "not connected yet" not in link.client.problem, "tried")
    assert re.search(words, link.client.problem), link.client.problem
    assert not link.client.up
    assert running.listener.state().problems


def test_a_renewed_certificate_counts_from_the_next_connection_on(
    listen, plain, tls_broker, authority, tmp_path, broker, until
):
    port = tls_broker(*authority.issue("broker"))
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority(tmp_path, "old").file.read_bytes())
    running = listen(subscriptions=[PLANT], port=port, tls=True, ca_file=str(ca))
    until(lambda: "certificate" in running.listener._links[0].client.problem, "refused")
    ca.write_bytes(authority.file.read_bytes())
    running.connected()
    assert is_answered(plain)


@pytest.fixture
def password_broker(broker, tmp_path) -> Path:
    """Have the broker ask for a password; return the file that holds the right one."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "appliance", "right"], check=True, capture_output=True)
    passwords.chmod(0o600)
    broker.stop()
    broker.configure("per_listener_settings false", f"password_file {passwords}", "allow_anonymous true")
    broker.start()
    file = tmp_path / "password"
    file.write_text("right\n")
    return file


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_password_from_a_file_is_taken_and_a_wrong_one_does_not(listen, plain, password_broker, until, protocol):
    settings = {"subscriptions": [PLANT], "username": "appliance", "password_file": str(password_broker)}
    password_broker.write_text("wrong\n")
    running = listen(protocol=protocol, **settings)
    until(lambda: "refuses the connection" in running.listener._links[0].client.problem, "refused")
    assert "authorized" in running.listener.state().problems[0]
    password_broker.write_text("right\n")
    running.connected()
    assert is_answered(plain)


def test_a_password_file_that_is_absent_is_said_and_tried_again(listen, tmp_path, until):
    file = tmp_path / "later"
    running = listen(subscriptions=[PLANT], username="a", password_file=str(file))
    until(lambda: str(file) in running.listener._links[0].client.problem, "said")
    file.write_text("x")
    running.connected()


def test_a_broker_that_keeps_silent_is_given_up_and_tried_again(listen, until, monkeypatch):
    monkeypatch.setattr("appliance.mqtt.client.CONNECT_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        running = listen(subscriptions=[PLANT], port=silent.getsockname()[1])
        until(lambda: "no answer within" in running.listener._links[0].client.problem, "given up")
        first, _ = silent.accept()
        second, _ = silent.accept()  # it was tried again
        first.close()
        second.close()
    assert not running.listener._links[0].client.up


@pytest.mark.parametrize(
    "talk", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x00\x36\x03ab", b"\x30\xff\xff\xff\xff\x01"]
)
def test_what_is_no_broker_cannot_break_the_listener(listen, until, talk):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        running = listen(subscriptions=[PLANT], port=server.getsockname()[1], protocol="3.1.1")
        for _ in range(2):
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(talk)
            connection.close()
    assert running.thread.is_alive()
    until(lambda: running.listener.state().problems, "a problem")


class Amqtt:
    """An amqtt broker in a thread of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        config = {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        self._broker = AmqttBroker(config, loop=self._loop)
        self._loop.run_until_complete(self._broker.start())
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._broker.shutdown(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)


@pytest.fixture
def amqtt():
    running = Amqtt()
    yield running
    running.stop()


def test_another_broker_than_mosquitto_is_served_too(amqtt, listen, plain):  # it ends after its clients
    listen(subscriptions=[PLANT | {"echo": ["n"]}], port=amqtt.port, protocol="3.1.1").connected()
    client = plain("plant/+/prediction", port=amqtt.port, five=False)
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    for number in range(50):
        client.publish("plant/a/sensors", {**dict(zip(names, ROW, strict=True)), "n": number})
    answers = client.answers(50)
    assert [answer["n"] for answer in answers] == list(range(50))
    assert answers[0]["prediction"] == EXPECTED
