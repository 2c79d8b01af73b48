"""`appliance doctor`: whether this host has what the appliance needs, and what to do where it does not."""

import os
import platform
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import click

from appliance import cgroup, inference, memory
from appliance.cli import as_json, common_options, no_effect, options
from appliance.cli.address import ask, configured
from appliance.cli.output import echo, print_json
from appliance.config import BrokerConfig, Config
from appliance.errors import ApplianceError, ConfigError
from appliance.experiments import info
from appliance.inference import processor
from appliance.store import activation, condition, experiments, trials
from appliance.store.versions import Store

LEAST_PYTHON = (3, 11)
LEAST_ONNXRUNTIME = (1, 21)
LEAST_GLIBC = (2, 28)
"""onnxruntime's wheels are built for manylinux_2_28."""
LEAST_OPENSSL = (3, 0)
"""OpenSSL's own support of 1.1.1 ended in September 2023; some distributions still patch theirs."""
LOW_DISK_BYTES, WANTED_DISK_BYTES = 64 * 1024**2, 512 * 1024**2
LOW_MEMORY_BYTES, WANTED_MEMORY_BYTES = 96 * 1024**2, 160 * 1024**2
"""A service with a small model takes up to 80 MiB; large forests take more."""

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was checked, the result, and what to do if it failed."""

    check: str
    state: State
    found: str
    next: str = ""


@click.command()
@as_json
@common_options
def doctor(as_json: bool) -> None:
    """Check what the appliance needs of this host. Ends with exit code 1 when a line says fail."""
    findings = examine(options().config())
    failed = any(finding.state == "fail" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            echo(f"{finding.state:<5}{finding.check:<14}{finding.found}")
            if finding.next:
                echo(f"{'':<5}{'':<14}-> {finding.next}")
    click.get_current_context().exit(1 if failed else 0)


def examine(config: Config) -> list[Finding]:
    """Return the findings of every check, in the order in which to fix them."""
    temporary = Path(tempfile.gettempdir())
    checks: list[Callable[[], Finding]] = [
        check_python,
        check_onnxruntime,
        lambda: check_openssl(ssl.OPENSSL_VERSION, ssl.OPENSSL_VERSION_INFO[:2]),
        check_telemetry,
        check_processor,
        check_glibc,
        lambda: check_state_folder(config.state_dir),
        lambda: check_disk(config.state_dir),
        lambda: check_noexec("state mount", nearest(config.state_dir)),
        lambda: check_noexec("temp mount", temporary),
        lambda: check_keys(config.store.trusted_keys),
        lambda: check_settings(config),
        lambda: check_port(config),
        lambda: check_broker(config.mqtt),
        lambda: check_memory(cgroup.limits().memory_bytes),
        lambda: check_versions(Store.of(config), memory.limit_bytes()),
        lambda: check_experiments(Store.of(config)),
        lambda: check_processors(cgroup.limits().processors, config),
    ]
    return [check() for check in checks]


def check_python() -> Finding:
    """Return whether this Python is new enough."""
    if sys.version_info >= LEAST_PYTHON:
        return Finding("python", "ok", platform.python_version())
    return Finding("python", "fail", platform.python_version(), f"install Python {_dotted(LEAST_PYTHON)} or later")


def check_onnxruntime() -> Finding:
    """Return whether onnxruntime can be imported and is new enough."""
    try:
        import onnxruntime

        number = str(onnxruntime.__version__)
    except Exception as error:  # noqa: BLE001 - a broken native library raises many kinds
        try:
            installed = f"{version('onnxruntime')} is installed, but cannot be imported"
        except PackageNotFoundError:
            installed = "it is not installed"
        found = f"{installed} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        return Finding("onnxruntime", "fail", found, "reinstall onnxruntime for this Python and processor")
    if _numbers(number) < LEAST_ONNXRUNTIME:
        return Finding("onnxruntime", "fail", number, f"install onnxruntime {_dotted(LEAST_ONNXRUNTIME)} or later")
    return Finding("onnxruntime", "ok", number)


def check_openssl(name: str, number: tuple[int, ...]) -> Finding:
    """Return which OpenSSL does TLS for MQTT and `pull`; signatures are checked by the one inside of `cryptography`."""
    if number >= LEAST_OPENSSL:
        return Finding("openssl", "ok", name)
    next_step = (
        "use a Python that is linked with OpenSSL 3, or the kit's binary, unless your distribution mends this one"
    )
    return Finding("openssl", "warn", name, next_step)


def check_telemetry() -> Finding:
    """Return whether onnxruntime's telemetry is off, under each of its names."""
    on = [name for name in inference.TELEMETRY_SWITCHES if os.environ.get(name) != "1"]
    if on:
        return Finding(
            "telemetry", "fail", f"{', '.join(on)} is not set", f"export {' '.join(f'{name}=1' for name in on)}"
        )
    return Finding("telemetry", "ok", "off")


def check_processor(cpuinfo: Path = processor.CPUINFO) -> Finding:
    """Return which vector extensions there are; without them onnxruntime is slow and rounds differently."""
    have = processor.vector_extensions(cpuinfo)
    found = f"{processor.describe(cpuinfo)} ({', '.join(have) or 'no vector extensions'})"
    if {"avx2", "avx512f", "neon", "asimd"} & set(have):
        return Finding("processor", "ok", found)
    return Finding(
        "processor", "warn", found, "expect slow predictions; in a VM, let it see the host's processor flags"
    )


def check_glibc(name: str | None = None, number: str | None = None) -> Finding:
    """Return whether the C library is one that onnxruntime's wheels run on."""
    if name is None or number is None:
        name, number = platform.libc_ver()
    if name != "glibc":
        return Finding(
            "glibc", "fail", f"the C library is {name or 'not glibc'}", "use a distribution with glibc (not Alpine)"
        )
    if _numbers(number) < LEAST_GLIBC:
        return Finding(
            "glibc", "fail", number, f"use a system with glibc {_dotted(LEAST_GLIBC)} or later (Debian 10, RHEL 8)"
        )
    return Finding("glibc", "ok", number)


def check_state_folder(folder: Path) -> Finding:
    """Return whether the state folder can be written, and by this user and group alone."""
    check = "state folder"
    found = condition.look(folder)
    if found.read_only:  # a read-only mount may be intended
        return Finding(check, "warn", found.warning, "mount it writable to install, and for MQTT")
    if found.hindrance:
        next_step = f"give {folder} to the service's user, or free some space"
        return Finding(check, "fail", found.hindrance, next_step if found.free_bytes else "name another by --state-dir")
    if found.mode is None:
        return Finding(check, "ok", f"{folder} is absent; the first install makes it")
    if found.mode & 0o002:
        return Finding(check, "fail", f"{folder} can be written by everyone ({found.mode:o})", f"chmod 750 {folder}")
    return Finding(check, "ok", f"{folder} ({found.mode:o})")


def check_keys(files: Sequence[str]) -> Finding:
    """Return whether the trusted public keys can be read: without them nothing can be installed."""
    check = "trusted keys"
    if not files:
        return Finding(check, "ok", "none are configured; bundles need no signature")
    from appliance.bundle import keys  # cryptography takes longer to import than all other checks

    for file in files:
        try:
            keys.load_public_keys(keys.read_file(Path(file)))
        except ApplianceError as error:
            return Finding(check, "fail", str(error), "put a public key (PEM) there, or correct [store] trusted_keys")
    return Finding(check, "ok", ", ".join(files))


def check_settings(config: Config) -> Finding:
    """Return whether every setting that is set has an effect."""
    try:
        no_effect.refuse(config)
    except ApplianceError as error:
        return Finding("settings", "fail", str(error), "the service refuses to start with them")
    idle = no_effect.found(config)
    return (
        Finding("settings", "warn", "; ".join(idle), "remove them, or set what they need")
        if idle
        else Finding("settings", "ok", "each has an effect")
    )


def check_disk(folder: Path) -> Finding:
    """Return whether there is room for a bundle."""
    free = condition.look(folder).free_bytes
    if free is None:
        return Finding("disk", "fail", "the free space cannot be read", "see the line on the state folder")
    found = f"{free // 1024**2} MiB free"
    if free >= WANTED_DISK_BYTES:
        return Finding("disk", "ok", found)
    return Finding(
        "disk", "fail" if free < LOW_DISK_BYTES else "warn", found, "remove old versions, or free some space"
    )


def check_noexec(check: str, folder: Path) -> Finding:
    """Return whether a folder is mounted noexec: nothing of the appliance is run from there, but others may be."""
    if not os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return Finding(check, "ok", f"{folder} is not noexec")
    if check == "temp mount":
        return Finding(
            check, "warn", f"{folder} is noexec: one-file executables cannot start there", "set TMPDIR if one needs it"
        )
    return Finding(check, "ok", f"{folder} is noexec; nothing is run from there")


def check_port(config: Config) -> Finding:
    """Return whether the service's port is free, or served by the appliance itself."""
    host, port = config.http.host, config.http.port
    if port == 0:
        return Finding("port", "ok", "the system chooses one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        served = ask(configured(config), "/health/live")
        if served["running"] and served["status"] == 200 and isinstance(served["answer"], dict):
            return Finding("port", "ok", f"{host}:{port} is served by the appliance")
        next_step = "name another host or port in [http], or end what uses it (ss -ltnp)"
        return Finding("port", "fail", f"{host}:{port} cannot be bound ({error.strerror or error})", next_step)
    return Finding("port", "ok", f"{host}:{port} is free")


def check_broker(broker: BrokerConfig) -> Finding:
    """Return whether the broker answers, and whether it has dropped messages: its queues are too small then."""
    check = "broker"
    if not broker.host:
        return Finding(check, "ok", "none is configured")
    from appliance.mqtt import broker_report  # paho takes longer to import than all other checks

    try:
        report = broker_report.ask(broker)
    except ConfigError as error:
        return Finding(check, "fail", error.found, error.next_step)
    if report.problem:
        return Finding(check, "warn", f"{broker.host}: {report.problem}", "see docs/how-to/connect-a-plant-broker.md")
    name = f"{broker.host} ({report.version or 'its $SYS topics do not tell its version'})"
    if report.dropped:
        next_step = "raise the broker's max_queued_messages and max_queued_bytes: docs/how-to/connect-a-plant-broker.md"
        return Finding(check, "warn", f"{name} has dropped {report.dropped} messages since it started", next_step)
    return Finding(check, "ok", f"{name} {'does not tell of' if report.dropped is None else 'has no'} dropped messages")


def check_memory(limit: int | None) -> Finding:
    """Return whether the cgroup allows enough memory."""
    if limit is None:
        return Finding("memory limit", "ok", "none")
    found = f"{limit // 1024**2} MiB"
    if limit >= WANTED_MEMORY_BYTES:
        return Finding("memory limit", "ok", found)
    state: State = "fail" if limit < LOW_MEMORY_BYTES else "warn"
    return Finding(
        "memory limit", state, found, f"allow {WANTED_MEMORY_BYTES // 1024**2} MiB or more (MemoryMax=, --memory)"
    )


def check_versions(store: Store, limit: int) -> Finding:
    """Return the active versions' memory and time in their trial, and whether all fit beside another trial."""
    check = "versions"
    try:
        active = {name: activation.read(store, name).active for name in store.names()}
    except ApplianceError as error:
        return Finding(check, "fail", str(error), "repair the state folder")
    versions = [(name, version) for name, version in sorted(active.items()) if version]
    known = [(one, trials.read(store.models_dir / one[0]).get(one[1])) for one in versions]
    tried = [(one, trial) for one, trial in known if trial]
    if not tried:
        return Finding(check, "ok", "none is active that was tried here")
    needs = [f"{' '.join(one)} {_mib(trial.memory_bytes)} MiB, {trial.load_seconds:.2f} s" for one, trial in tried]
    each = [trial.memory_bytes for _, trial in tried]
    found = f"memory and time to load: {'; '.join(needs)}"
    if sum(each) + max(each) + WANTED_MEMORY_BYTES <= limit:
        return Finding(check, "ok", found)
    next_step = "allow more memory: one more version is loaded beside these before it takes over"
    return Finding(check, "warn", f"{found}; {_mib(limit)} MiB are allowed", next_step)


def check_experiments(store: Store) -> Finding:
    """Return whether each experiment can be read, and its versions are there."""
    check, running = "experiments", []
    for name in store.names():
        try:
            routing = experiments.read(store, name)
        except ApplianceError as error:
            return Finding(check, "fail", f"{error.tried}: {error.found}", error.next_step)
        if routing is None:
            continue
        if gone := info.missing(store, name, routing):
            found, _, next_step = gone.rpartition("; ")
            return Finding(check, "fail", f"{name}, {routing.described}: {found}", next_step)
        try:
            for version in routing.challengers:
                store.installed(name, version)
        except ApplianceError as error:
            return Finding(check, "fail", f"{name}, {routing.described}: {error.found}", f"appliance abort {name}")
        running.append(f"{name}, {routing.described}")
    return Finding(check, "ok", "; ".join(running) or "none runs")


def _mib(count: int) -> int:
    """Return bytes in MiB, rounded up."""
    return -(-count // 1024**2)


def check_processors(limit: float | None, config: Config) -> Finding:
    """Return whether the service is configured for the processor time that its cgroup allows."""
    allowed = float(len(os.sched_getaffinity(0)) if limit is None else min(limit, len(os.sched_getaffinity(0))))
    wanted = config.http.processes * config.models.threads
    found = f"{allowed:g} allowed, {wanted} configured"
    if wanted <= max(1.0, allowed):
        return Finding("processors", "ok", found)
    return Finding("processors", "warn", found, "lower [http] processes or [models] threads: more only take turns")


def nearest(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.exists(folder))  # noqa: PTH110


def _numbers(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: (1, 32) of 1.32.0."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split(".")[:2])


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
