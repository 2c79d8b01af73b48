"""A network namespace with one way out, on which every packet is counted; for the tests of what leaves the host.

    inside 198.51.100.2 ---- 198.51.100.1 beyond: an MQTT broker, and the way to everything else

Inside, the default route and the only name server lead beyond; nothing there answers but the broker. So whatever a
program inside wants to reach, its first packet comes out of the cable, and is counted. Loopback is counted apart.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

OWN, BROKER, RESOLVER = "198.51.100.2", "198.51.100.1", "203.0.113.53"
PORT = 1883
RULES_INSIDE = """
table inet counted { counter loopback {}
  chain out { type filter hook output priority 0; oifname "lo" counter name loopback; }; }
"""
RULES_BEYOND = f"""
table netdev counted {{ counter broker {{}}; counter lookup {{}}; counter other {{}};
  chain in {{ type filter hook ingress device "way" priority 0;
    ip saddr {OWN} ip daddr {BROKER} tcp dport {PORT} counter name broker accept;
    meta l4proto {{ tcp, udp }} th dport 53 counter name lookup accept;
    counter name other; }}; }}
"""
APPLIANCE = f"""
[mqtt]
host = "{BROKER}"

[[mqtt.subscriptions]]
topic = "flowers/+"
model = "iris"
answer = "answers/{{1}}"
retain = true
"""
"""The configuration of an appliance inside."""
ROW = [6.3, 3.3, 6.0, 2.5]
ASK = """
import json, sys, urllib.request
for _ in range(int(sys.argv[1])):
    answer = json.load(urllib.request.urlopen("http://127.0.0.1:8080/predict", json.dumps({"features": %r}).encode()))
print(answer["version"], answer["prediction"][0])
""" % [ROW]
FACTOR = 30
"""How many times as fast a clock goes that is to show an hour soon; well above, connections time out at once."""
MINUTES = 60


class Counts(NamedTuple):
    """Packets so far."""

    loopback: int
    broker: int
    lookup: int
    other: int


@contextmanager
def made_space(name: str, scratch: Path, process: int = 0) -> Iterator["Space"]:
    """Make a space and take it away; `process` is one whose namespace is to be the inside, else a new one is made."""
    space = Space(name, scratch)
    try:
        space.build(process)
        yield space
    finally:
        space.close()


class Space:
    """The namespaces `NAME-in` and `NAME-out`, the cable between them, and the broker."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.inside_name, self.beyond_name = f"{name}-in", f"{name}-out"
        self.log, self.config = scratch / "broker.log", scratch / "mosquitto.conf"
        self.resolver = Path("/etc/netns") / self.inside_name / "resolv.conf"
        self.broker: subprocess.Popen[bytes] | None = None

    def build(self, process: int) -> None:
        # Only what `ip netns exec` starts sees this file; a container needs its own.
        self.resolver.parent.mkdir(parents=True)
        self.resolver.write_text(f"nameserver {RESOLVER}\n")
        run("ip", "netns", *(("attach", self.inside_name, str(process)) if process else ("add", self.inside_name)))
        run("ip", "netns", "add", self.beyond_name)
        # Quiet kernels on both ends: what is seen is what a program sends.
        quiet = "for one in all default; do echo 1 > /proc/sys/net/ipv6/conf/$one/disable_ipv6; done; ip link set lo up"
        for one in (self.inside, self.beyond):
            run(*one("sh", "-c", quiet))
        peer = ("type", "veth", "peer", "name", "way", "netns", self.beyond_name)
        run("ip", "-n", self.inside_name, "link", "add", "way", *peer)
        self._wire(self.inside_name, OWN, BROKER)
        self._wire(self.beyond_name, BROKER, OWN)
        run("ip", "-n", self.inside_name, "route", "add", "default", "via", BROKER)
        run(*self.inside("nft", "-f", "-"), given=RULES_INSIDE)
        run(*self.beyond("nft", "-f", "-"), given=RULES_BEYOND)
        listeners = f"listener {PORT} {BROKER}\nlistener {PORT} 127.0.0.1\n"
        self.config.write_text(f"user root\nallow_anonymous true\nlog_type all\nlog_dest stderr\n{listeners}")
        with self.log.open("w") as log:
            self.broker = subprocess.Popen(self.beyond("mosquitto", "-c", str(self.config)), stderr=log)

    def _wire(self, name: str, address: str, other: str) -> None:
        """Bring up one end of the cable; it knows the other, so that none has to ask."""
        own, others = (f"02:00:00:00:00:{one.rpartition('.')[2]:>02}" for one in (address, other))
        run("ip", "-n", name, "link", "set", "way", "address", own, "up")
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "way")
        run("ip", "-n", name, "neighbour", "add", other, "lladdr", others, "dev", "way")

    def close(self) -> None:
        if self.broker:
            self.broker.terminate()
            self.broker.wait(30)
        for name in (self.inside_name, self.beyond_name):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        shutil.rmtree(self.resolver.parent, ignore_errors=True)

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs `command` inside."""
        return ["ip", "netns", "exec", self.inside_name, *command]

    def beyond(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.beyond_name, *command]

    def counts(self) -> Counts:
        """Return the packets that went out so far."""
        found = {}
        for one in (self.inside, self.beyond):
            listed = json.loads(run(*one("nft", "-j", "list", "counters")))["nftables"]
            found |= {entry["counter"]["name"]: entry["counter"]["packets"] for entry in listed if "counter" in entry}
        return Counts(**found)

    def predict(self, times: int) -> str:
        """Ask over REST from inside; return `VERSION LABEL` of the last answer."""
        return run(*self.inside(sys.executable, "-c", ASK, str(times))).strip()

    def predict_over_mqtt(self, name: str) -> dict[str, Any]:
        """Publish a row beyond; return its answer, which the broker keeps for whoever comes later."""
        run(*self.beyond("mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-t", f"flowers/{name}", "-m", json.dumps(ROW)))
        answer = run(*self.beyond("mosquitto_sub", "-h", "127.0.0.1", "-t", f"answers/{name}", "-C", "1", "-W", "60"))
        return dict(json.loads(answer))

    def status_messages(self) -> int:
        """Return how many status messages came to the broker; the service sends one every 30 seconds of its clock."""
        return len(re.findall(r"Received PUBLISH .*'appliance/[^']*/status'", self.log.read_text()))


def live(space: Space, appliance: Callable[..., object], folder: str) -> None:
    """Have a running service do what services do: answer, switch versions, be looked at, roll back.

    `appliance` runs its command; `folder`, as the command sees it, holds iris-2.0.0.bundle.
    """
    wait_for(lambda: "Received SUBSCRIBE" in space.log.read_text(), "subscribed")
    assert space.predict(200) == "1.0.0 virginica"
    assert space.predict_over_mqtt("first")["version"] == "1.0.0"
    appliance("install", f"{folder}/iris-2.0.0.bundle")
    appliance("activate", "iris", "2.0.0")
    wait_for(lambda: space.predict(1) == "2.0.0 virginica", "switched")
    assert space.predict(200) == "2.0.0 virginica"
    assert space.predict_over_mqtt("second")["version"] == "2.0.0"
    for command in (("status", "--json"), ("models",), ("verify", f"{folder}/iris-2.0.0.bundle", "--self-test")):
        appliance(*command)
    appliance("rollback", "iris")
    wait_for(lambda: space.predict(1) == "1.0.0 virginica", "rolled back")


def idle_for_an_hour(space: Space) -> None:
    """Wait until a service whose clock is fast has sent the status messages of an hour."""
    before = space.status_messages()
    wait_for(lambda: space.status_messages() - before >= MINUTES * 2, "an hour old", seconds=900)


def hold(space: Space, trace: Path) -> None:
    """Hold that the broker alone was reached: by the packets that were counted, and by the calls that strace saw."""
    counts = space.counts()
    assert (counts.lookup, counts.other) == (0, 0)
    assert counts.broker > 0
    assert counts.loopback > 0
    assert {one for one in reached(trace) if not one.startswith("127.")} == {f"{BROKER}:{PORT}"}


def reached(trace: Path) -> set[str]:
    """Return what the calls in a file of strace were addressed to: `ADDRESS:PORT`, or the path of a local socket."""
    text = trace.read_text(errors="replace")
    network = r"sin6?_port=htons\((\d+)\)[^\n}]*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\""
    calls = "\n".join(re.findall(r"^.*\b(?:connect|sendto|sendmsg|sendmmsg)\(.*$", text, re.MULTILINE))
    found = {f"{address}:{port}" for port, address in re.findall(network, calls)}
    return found | set(re.findall(r"sun_path=@?\"([^\"]+)\"", calls))


def build_fast_clock(folder: Path) -> Path:
    """Compile the library that makes a program's clock fast, for LD_PRELOAD."""
    library = folder / "fast_clock.so"
    source = Path(__file__).with_name("fast_clock.c")
    run("cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
    return library


def fast_clock(library: Path | str) -> dict[str, str]:
    """Return the variables that make the clock of a program fast from now on."""
    start = str(time.clock_gettime(time.CLOCK_MONOTONIC))
    return {"LD_PRELOAD": str(library), "FAST_CLOCK": str(FACTOR), "FAST_CLOCK_START": start}


def run(*command: str, given: str | None = None) -> str:
    """Return the standard output of a command that must succeed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_for(true: Callable[[], object], what: str, seconds: float = 180) -> None:
    """Wait until `true` is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return
        time.sleep(0.2)
    pytest.fail(f"never {what}")
