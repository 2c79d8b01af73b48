"""The compose file as a site runs it: the appliance, a broker and TLS, asked from outside.

The broker and the proxy are Debian's mosquitto and nginx on the base image, in place of the images that the file names.
"""

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
from containers import FLOWERS, docker, free_port, wait_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).parent
COMPOSE_FILE = HERE.parents[2] / "packaging/docker/compose.yml"
TOKEN = "a-token-of-this-test-alone"
STAND_IN = """
FROM {base}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends mosquitto nginx-light
RUN install -d -o 1883 /mosquitto/data
"""


class Site(NamedTuple):
    """A site that runs."""

    compose: Callable[..., str]
    https: int
    mqtts: int
    certificate: Path

    def predict(self, token: str = TOKEN) -> tuple[int, dict]:
        body = json.dumps({"features": FLOWERS[0]}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"https://localhost:{self.https}/predict", body, headers)
        trust = ssl.create_default_context(cafile=str(self.certificate))
        try:
            with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {}

    def mqtt(self, command: str, *words: str, password: str = "line's") -> list[str]:
        """Return the command line of mosquitto_pub or mosquitto_sub as the broker's user `line`."""
        place = ("-h", "localhost", "-p", str(self.mqtts), "--cafile", str(self.certificate))
        return [f"mosquitto_{command}", *place, "-u", "line", "-P", password, "-q", "1", *words]

    def containers(self) -> list[str]:
        return self.compose("ps", "--quiet").split()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory) -> Path:
    """The folder of secrets, as docs/containers.md has it made."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "tokens").write_text(f"predict {TOKEN}\n")
    (folder / "mqtt-password").write_text("appliance's")
    for create, user in ((["-c"], "appliance"), ([], "line")):
        line = ["mosquitto_passwd", *create, "-b", str(folder / "mqtt-users"), user, f"{user}'s"]
        subprocess.run(line, check=True, capture_output=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = builder.add_extension(x509.SubjectAlternativeName(names), False).sign(key, hashes.SHA256())
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.key").write_bytes(key.private_bytes(*form))
    for file in folder.iterdir():
        os.chown(file, 0, 0)
        file.chmod(0o640)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def stand_in() -> str:
    """The image of the broker and of the proxy."""
    name = "appliance-test/stand-in"
    recipe = STAND_IN.format(base=os.environ["IMAGE_BASE"])
    line = [*os.environ.get("DOCKER", "docker").split(), "build", "--network=host", "--quiet", "--tag", name, "-"]
    subprocess.run(line, input=recipe, text=True, check=True, capture_output=True, timeout=600)
    return name


@pytest.fixture(scope="module")
def site(image, stand_in, secrets, bundles, tmp_path_factory) -> Iterator[Site]:
    """The site, up; taken down with its volumes in the end."""
    tools = subprocess.run(
        ["sh", HERE / "compose.sh", tmp_path_factory.mktemp("compose")], check=True, capture_output=True, text=True
    )
    given = tmp_path_factory.mktemp("given")
    given.chmod(0o755)
    (given / "iris-1.0.0.bundle").write_bytes((bundles / "iris-1.0.0.bundle").read_bytes())
    https, mqtts = free_port(), free_port()
    own = {
        "APPLIANCE_IMAGE": image,
        "BROKER_IMAGE": stand_in,
        "PROXY_IMAGE": stand_in,
        "HTTPS_LISTEN": f"127.0.0.1:{https}",
        "BROKER_LISTEN": f"127.0.0.1:{mqtts}",
        "SECRETS": str(secrets),
        "BUNDLES": str(given),
    }

    def compose(*words: str) -> str:
        line = [*tools.stdout.split(), "--project-name", f"test{os.getpid()}", "--file", str(COMPOSE_FILE), *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300, env=os.environ | own)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        compose("up", "--detach", "--wait", "--wait-timeout", "240")
        yield Site(compose, https, mqtts, secrets / "tls.crt")
    finally:
        compose("down", "--volumes", "--timeout", "30")


def test_site_predicts_over_https_for_whoever_has_a_token(site):
    wait_for(lambda: site.predict()[0] == 200, "answered")
    status, answer = site.predict()
    assert (status, answer["prediction"], answer["version"]) == (200, ["virginica"], "1.0.0")
    assert site.predict(token="another")[0] == 401


def test_site_predicts_over_mqtt_for_whoever_has_a_password(site):
    ask = ("-t", "line/7/flower", "-m", json.dumps(FLOWERS[0]))

    def answered() -> bool:
        line = site.mqtt("sub", "-t", "line/7/species", "-C", "1", "-W", "10")
        listening = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        subprocess.run(site.mqtt("pub", *ask, "--repeat", "5", "--repeat-delay", "1"), check=True, timeout=60)
        return "virginica" in listening.communicate(timeout=60)[0]

    wait_for(answered, "answered")
    refused = subprocess.run(site.mqtt("pub", *ask, password="guessed"), capture_output=True, check=False, timeout=60)
    assert refused.returncode != 0


def test_every_container_is_read_only_and_without_capabilities_and_the_appliance_is_on_an_internal_network_alone(site):
    containers = site.containers()
    assert len(containers) == 3
    for one in containers:
        host = json.loads(docker("inspect", "--format={{json .HostConfig}}", one).stdout)
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
    # The engine makes no way out of an internal network; packets themselves are test_image_leaves_nothing.py's.
    appliance = site.compose("ps", "--quiet", "appliance").strip()
    networks = docker(
        "inspect", "--format={{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", appliance
    )
    (network,) = networks.stdout.split()
    assert docker("network", "inspect", "--format={{.Internal}}", network).stdout.strip() == "true"


def test_new_container_serves_what_the_old_one_had(site):
    before = site.compose("ps", "--quiet", "appliance")
    site.compose("up", "--detach", "--force-recreate", "--no-deps", "appliance")
    assert site.compose("ps", "--quiet", "appliance") != before
    wait_for(lambda: site.predict()[0] == 200, "answered again")
    assert site.predict()[1]["prediction"] == ["virginica"]
