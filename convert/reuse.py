"""Knows whether an earlier bundle's certificate holds for a model and sample again, so that nothing needs to be proved.

A certificate names the digests of all that it depends on (`Parity.of`). The same digests give the same certificate, so
it is taken over as it is; only name and version of the bundle are new.
"""

import hashlib
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import msgspec

from appliance.bundle import archive
from appliance.bundle.baseline import read as read_baseline
from appliance.bundle.manifest import check_name, check_version
from convert.conversion import Conversion
from convert.job import Job
from convert.proof.certificate import Parity
from convert.sources.fetched import digest

_MODULES = "own modules"
_NOT_COUNTED = frozenset({"fetched", "name", "version", "sample", "time_limit"})  # of a job, as its options
_PROGRAM = ("appliance", "convert")


def digests(job: Job) -> dict[str, str]:
    """Return {what a conversion depends on: its SHA-256}, read from the files; the model is not loaded."""
    fetched = job.fetched
    options = [(f.name, getattr(job, f.name)) for f in fields(job) if f.name not in _NOT_COUNTED]
    sample = job.sample or fetched.example
    return {
        "model": digest(fetched.path) if fetched.path.is_file() else _of_files([fetched.path]),
        "code": _of_files([fetched.code] if fetched.code else []),
        "sample": _of_files([sample] if sample else []),
        "options": _sha256(msgspec.json.encode((options, fetched.format))),
        "libraries": _sha256("\n".join(_distributions()).encode()),
        "appliance": _of_files([Path(__file__).parents[1] / name for name in _PROGRAM], "*.py"),
    }


def own_modules(before: Iterable[str]) -> str:
    """Return the modules imported since, by name, that belong to no installed library, or "" for none.

    Whether such a module changed is not known without loading the model.
    """
    paths = sysconfig.get_paths()
    installed = tuple(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    found = set()
    for name in set(sys.modules) - set(before):
        file = getattr(sys.modules[name], "__file__", None)
        if file and not file.startswith(installed) and "site-packages" not in file and not name.startswith(_PROGRAM):
            found.add(name)
    return ", ".join(sorted(found))


def stamped(report: Parity, of: dict[str, str], modules: str) -> Parity:
    """Return a report with the digests of what it depends on."""
    return msgspec.structs.replace(report, of=of | ({_MODULES: modules} if modules else {}))


def find(bundle: Path, job: Job) -> tuple[Conversion | None, list[str]]:
    """Return the conversion in an earlier bundle for a job where nothing changed, else None and what changed.

    Raises NotFound and BundleRefused for what is no whole bundle, Misuse for a name or version that none may have.
    """
    earlier = archive.open_bundle(bundle)
    certificate, baseline = (earlier.members.get(name) for name in (archive.PARITY, archive.BASELINE))
    known = msgspec.json.decode(certificate, type=Parity) if certificate else None
    if known is None or not known.of or baseline is None or archive.EXAMPLES not in earlier.members:
        return None, ["the certificate, which holds no digests"]
    now = digests(job)
    changed = [name for name in now if known.of.get(name) != now[name]]
    changed += [f"{_MODULES} of the model ({known.of[_MODULES]}), it may be"] if _MODULES in known.of else []
    if changed:
        return None, changed
    check_name(job.name)
    check_version(job.version)
    fetched = job.fetched
    provenance = msgspec.structs.replace(
        earlier.manifest.provenance, source=fetched.source, run=fetched.run, trained_with=fetched.libraries
    )
    manifest = msgspec.structs.replace(earlier.manifest, name=job.name, version=job.version, provenance=provenance)
    examples, model = earlier.members[archive.EXAMPLES], earlier.members[archive.MODEL]
    return Conversion(model, manifest, known, examples, read_baseline(baseline)), []


def with_digests(conversion: Conversion, of: dict[str, str], modules: str) -> Conversion:
    """Return a conversion whose certificate names what it depends on."""
    return replace(conversion, parity=stamped(conversion.parity, of, modules))


def _distributions() -> list[str]:
    """Return the installed libraries as NAME-VERSION."""
    folders = {Path(sysconfig.get_paths()[name]) for name in ("purelib", "platlib")}
    folders |= {Path(entry) for entry in sys.path if entry.endswith("site-packages")}
    return sorted({path.name for folder in folders for path in folder.glob("*.dist-info")} | {sys.version})


def _of_files(paths: list[Path], pattern: str = "*") -> str:
    """Return one SHA-256 over files, and over all that folders hold, with their names in there."""
    total = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob(pattern) if file.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(f"{file.relative_to(path)} {digest(file)}\n".encode())
    return total.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
