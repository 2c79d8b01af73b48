"""Signed bundles, a web server that can be made to fail, its certificate, and a real OCI registry."""

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.bundle import archive, keys, signature
from appliance.config import Config, PullConfig, StoreConfig
from appliance.inference.selftest import self_test
from appliance.pull import puller
from appliance.store import activation, durable
from appliance.store.versions import Store
from tests.conftest import free_port

# docker-registry takes bcrypt alone: plant:secret
HTPASSWD = "plant:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
PRIVATE, PUBLIC = keys.generate_key()
OTHER_PRIVATE, _ = keys.generate_key()
CACHE = Path(__file__).parents[3] / ".cache"
REGISTRY = shutil.which("docker-registry") or str(CACHE / "docker-registry/usr/bin/docker-registry")


class Site:
    """What a web server has: {path: content}, and how it misbehaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        """(path, headers) of every request."""
        self.sent: list[int] = []
        """Body bytes of every answer."""
        self.cut_after: int | None = None
        """The connection breaks after so many bytes of a bundle."""
        self.ignores_ranges = False
        self.wrong_range = False
        self.authorization = ""
        self.redirects: dict[str, str] = {}
        self.redirect_status = 302
        self.slow: dict[str, float] = {}
        """Path -> seconds between two bytes of its body."""
        self.statuses: dict[str, int] = {}
        self.base = ""

    def asked(self, ending: str) -> list[dict[str, str]]:
        """Return the headers of every request for a path with this ending."""
        return [headers for path, headers in self.requests if path.endswith(ending)]

    def publish(self, *bundles: Path, **rest: Any) -> None:
        """Put bundles there, and an index of them; `rest` replaces what the index says of the first."""
        entries = []
        for path in bundles:
            content = path.read_bytes()
            self.files[f"/{path.name}"] = content
            entries.append(entry(path))
        if rest:
            entries[0].update(rest)
        self.files["/index.json"] = json.dumps({"format": 1, "bundles": entries}).encode()


def entry(path: Path) -> dict[str, Any]:
    """Return what an index says of a bundle."""
    content = path.read_bytes()
    name, version = re.fullmatch(r"(.*?)-(\d.*)\.bundle", path.name).groups()  # type: ignore[union-attr]
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "version": version, "file": path.name, "sha256": digest, "size": len(content)}


def handler_of(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.requests.append((self.path, dict(self.headers)))
            content = site.files.get(self.path.partition("?")[0])
            if self.path in site.redirects:
                self.answer(site.redirect_status, b"", Location=site.redirects[self.path])
            elif self.path in site.statuses:
                self.answer(site.statuses[self.path], b"said so")
            elif site.authorization and self.headers.get("Authorization") != site.authorization:
                self.answer(401, b"", **{"WWW-Authenticate": "Bearer"})
            elif content is None:
                self.answer(404, b"nothing here")
            else:
                self.send(content)

        def send(self, content: bytes) -> None:
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            if self.headers.get("If-None-Match") == etag:
                self.answer(304, b"", ETag=etag)
                return
            begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if begin and not site.ignores_ranges:
                first = 0 if site.wrong_range else int(begin[1])
                part = content[first:]
                places = f"bytes {first}-{len(content) - 1}/{len(content)}"
                self.answer(206, part, **{"Content-Range": places})
            else:
                self.answer(200, content, ETag=etag)

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            cut = site.cut_after if self.path.endswith(".bundle") else None
            sent = body[:cut] if cut is not None else body
            site.sent.append(len(sent))  # before the client could know
            self.send_response(status)
            self.close_connection = True
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            pause = site.slow.get(self.path)
            with contextlib.suppress(OSError):
                for piece in [sent] if pause is None else (sent[at : at + 1] for at in range(len(sent))):
                    self.wfile.write(piece)
                    time.sleep(pause or 0)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving(site: Site, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve a site within; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(site))
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.base = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    yield site.base
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server without TLS."""
    found = Site()
    with serving(found):
        yield found


@pytest.fixture
def serve_site() -> Iterator[Callable[..., Site]]:
    """Return a function that serves one more site: serve_site(context=None)."""
    with contextlib.ExitStack() as stack:

        def serve(context: ssl.SSLContext | None = None) -> Site:
            found = Site()
            stack.enter_context(serving(found, context))
            return found

        yield serve


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Path:
    """A folder with the certificates of an authority (ca.pem), and of 127.0.0.1 and a client by it."""
    folder = tmp_path_factory.mktemp("authority")
    ca_key, ca = certificate(folder, "ca", None)
    certificate(folder, "server", (ca_key, ca))
    certificate(folder, "client", (ca_key, ca))
    return folder


def certificate(folder: Path, name: str, issuer: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """Write NAME.pem and NAME.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    usage = x509.KeyUsage(*[issuer is not None, *[False] * 4, issuer is None, issuer is None, False, False])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(day)
        .not_valid_after(day + datetime.timedelta(days=365 * 60))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(usage, critical=True)
    )
    signing = issuer[0] if issuer else key
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    found = built.add_extension(identifier, critical=False).sign(signing, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(found.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return key, found


@pytest.fixture
def tls_context(authority) -> ssl.SSLContext:
    """How the server speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    return context


@pytest.fixture
def tls_site(tls_context) -> Iterator[Site]:
    """A web server with TLS."""
    found = Site()
    with serving(found, tls_context):
        yield found


@pytest.fixture
def signed(tmp_path, make_bundle) -> Callable[..., Path]:
    """Return a function that writes NAME-VERSION.bundle, signed: signed("1.0.0", name=..., error=..., key=...)."""

    def make(version: str, *, folder: Path | None = None, key: bytes = PRIVATE, **rest: Any) -> Path:
        where = folder or tmp_path / "bundles"
        where.mkdir(exist_ok=True)
        path = make_bundle(where, version=version, **rest)
        bundle = archive.open_bundle(path)
        path.write_bytes(archive.with_signature(bundle, signature.sign(bundle.members, key)))
        return path

    return make


class Host:
    """One host that pulls."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.key = folder / "trusted.pub"
        self.key.write_bytes(PUBLIC)
        self.store = Store(self.state, trusted_keys=[str(self.key)])

    def config(self, source: object, **settings: Any) -> Config:
        keys_ = settings.pop("trusted_keys", (str(self.key),))
        settings.setdefault("models", ("iris", "pump", "a", "b"))
        return Config(
            store=StoreConfig(state_dir=str(self.state), trusted_keys=keys_),
            pull=PullConfig(source=str(source), **{"timeout": 20.0, **settings}),
        )

    def pull(self, source: object, *, again: bool = False, dry_run: bool = False, **settings: Any) -> list[Any]:
        """Pull; return [(model, version, what)]."""
        self.outcomes = puller.pull(self.config(source, **settings), self_test, again=again, dry_run=dry_run)
        return [(one.model, one.version, one.what) for one in self.outcomes]

    @property
    def error(self) -> str:
        """What the first outcome's error found."""
        return self.outcomes[0].error.found

    def active(self, name: str = "iris") -> str | None:
        return activation.read(self.store, name).active

    def receipts(self) -> list[tuple[str, str, str]]:
        return [(one.what, one.version, one.outcome) for one in self.store.receipts()]

    def leftovers(self) -> list[str]:
        """Return what is in the pull folder beside its record and lock."""
        return sorted(
            path.name for path in (self.state / "pull").iterdir() if path.name not in ("record.json", ".lock")
        )


@pytest.fixture
def host(tmp_path) -> Host:
    return Host(tmp_path)


class OciRegistry:
    """A real docker-registry on a free port."""

    def __init__(self, folder: Path, auth: dict[str, Any], authority: Path | None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.scheme = "https" if authority else "http"
        self.authority = authority
        self.credentials = "plant:secret" if "htpasswd" in auth else ""
        tls = {"certificate": str(authority / "server.pem"), "key": str(authority / "server.key")} if authority else {}
        config = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": self.address, **({"tls": tls} if tls else {})},
            **({"auth": auth} if auth else {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (folder / "log").open("ab") as log:
            command = [REGISTRY, "serve", str(folder / "config.yml")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def answers(self) -> bool:
        host, _, port = self.address.partition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    def send(self, method: str, path: str, body: bytes | None = None, kind: str = "application/octet-stream") -> Any:
        """Return the response to a request, which must succeed."""
        url = path if path.startswith("http") else f"{self.scheme}://{self.address}{path}"
        request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
        if self.credentials:
            request.add_header("Authorization", f"Basic {base64.b64encode(self.credentials.encode()).decode()}")
        context = ssl.create_default_context(cafile=self.authority / "ca.pem") if self.authority else None
        return urllib.request.urlopen(request, timeout=20, context=context)

    def blob(self, content: bytes, repository: str = "plant/models") -> str:
        """Push a blob; return its digest."""
        place = self.send("POST", f"/v2/{repository}/blobs/uploads/", b"").headers["Location"]
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.send("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", content)
        return digest

    def push(self, tag: str, layers: list[tuple[str, bytes]], repository: str = "plant/models") -> str:
        """Push an artefact as `oras push` does, layers being (media type, content); return its digest."""
        empty = b"{}"
        described = [
            {"mediaType": kind, "digest": self.blob(content, repository), "size": len(content)}
            for kind, content in layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.edge-inference-appliance.v1",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": self.blob(empty, repository),
                "size": len(empty),
            },
            "layers": described,
        }
        body = json.dumps(manifest).encode()
        self.send("PUT", f"/v2/{repository}/manifests/{tag}", body, manifest["mediaType"])
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def start_registry(tmp_path, until) -> Iterator[Callable[..., OciRegistry]]:
    """Return a function that starts a registry: start_registry(password=True, token={...}, authority=...).

    All of them have the same content, so that one may be pushed to and another asked.
    """
    started: list[OciRegistry] = []

    def start(
        *, password: bool = False, token: dict[str, str] | None = None, authority: Path | None = None
    ) -> OciRegistry:
        folder = tmp_path / "registry"
        folder.mkdir(exist_ok=True)
        (folder / "htpasswd").write_text(HTPASSWD)
        auth: dict[str, Any] = {"htpasswd": {"realm": "plant", "path": str(folder / "htpasswd")}} if password else {}
        started.append(OciRegistry(folder, {"token": token} if token else auth, authority))
        until(started[-1].answers, f"a registry on {started[-1].address}: {(folder / 'log').read_text()}")
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def registry(start_registry) -> OciRegistry:
    return start_registry()


@pytest.fixture
def other_key() -> bytes:
    """A private key that no host trusts."""
    return OTHER_PRIVATE


class DyingOs:
    """Stands for `os` in durable.py: the process dies before one of the calls that change the disk."""

    def __init__(self, die_at: int) -> None:
        self.left = die_at

    def __getattr__(self, name: str) -> object:
        found = getattr(os, name)
        if name not in ("open", "write", "mkdir", "rename", "replace", "unlink", "fsync", "rmdir"):
            return found

        def call(*arguments: object, **rest: object) -> object:
            self.left -= 1
            if self.left < 0:
                os._exit(137)
            return found(*arguments, **rest)

        return call


def dies_at(work: Callable[[], object], die_at: int) -> bool:
    """Do some work in a child process that dies at a call; return whether it came so far."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            durable.os = DyingOs(die_at)  # type: ignore[assignment]
            work()
            os._exit(0)
        os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 137)
    return status == 137


@pytest.fixture
def dies() -> Callable[[Callable[[], object], int], bool]:
    """Return a function that does work in a process which dies before its n-th call that changes the disk."""
    return dies_at
