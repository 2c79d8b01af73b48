"""Where a trained model comes from: picks the source by its URL, and asks for trust before a pickle may run."""

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from appliance import extras
from appliance.errors import ConversionRefused, Misuse, NotFound
from convert.sources.fetched import Fetched, format_of

__all__ = ["Fetched", "check_trust", "fetch", "is_trusted"]


class _Source(Protocol):
    """A module of this package that knows one kind of registry."""

    def fetch(self, url: str, folder: Path) -> Fetched:
        """Put the model of `url` into `folder`."""


# Scheme -> (module, the library it imports, the extra that brings it).
_SCHEMES = {
    "models": ("convert.sources.mlflow_registry", "mlflow", "mlflow"),
    "runs": ("convert.sources.mlflow_registry", "mlflow", "mlflow"),
    "dvc": ("convert.sources.dvc_repo", "dvc", "dvc"),
    "s3": ("convert.sources.s3_bucket", "boto3", "s3"),
    "sagemaker": ("convert.sources.sagemaker_registry", "boto3", "s3"),
}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)  # two letters at least: C:\ is a drive


def fetch(url: str, folder: Path) -> Fetched:
    """Return the model that `url` names, put into `folder` unless it is a local path.

    Raises Misuse for an unknown scheme or ending and for a library that is not installed, NotFound for a model that
    is not there, NotReady for a registry that does not answer, and ConversionRefused for what cannot be unpacked.
    """
    scheme = _SCHEME.match(url)
    if scheme is None or Path(url).exists():
        return _local(Path(url))
    if scheme[1] not in _SCHEMES:
        known = ", ".join(f"{name}:" for name in _SCHEMES)
        raise Misuse(f"fetch {url}", f"the scheme {scheme[1]!r} is unknown", f"give a path, or a URL with {known}")
    if ".." in re.split(r"[/@#:]", url):
        raise Misuse(f"fetch {url}", "its path contains '..'", "give the path without '..'")
    module, library, extra = _SCHEMES[scheme[1]]
    try:
        source = cast(_Source, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise Misuse(f"fetch {url}", f"{library} is not installed", extras.how_to_get(extra)) from error
    return source.fetch(url, folder)


def is_trusted(fetched: Fetched, url: str, prefixes: Sequence[str]) -> bool:
    """Return whether a trusted prefix covers the source, by the URL asked for or the one found; whole path parts only.

    `s3://models` names `s3://models/iris.pkl` and not `s3://models-of-others/iris.pkl`.
    """
    return any(_begins(name, prefix) for name in (url, fetched.source) for prefix in prefixes)


def check_trust(fetched: Fetched, url: str, prefixes: Sequence[str], notice: Callable[[str], None]) -> None:
    """Print a notice that a pickle's code will run; raise ConversionRefused where that was not allowed.

    Local files are allowed; a registry's need a prefix given with `--trust`.
    """
    if not fetched.runs_code:
        return
    if not fetched.local and not is_trusted(fetched, url, prefixes):
        found = f"{fetched.path.name} is a pickle: loading it runs whatever code its author put there, with your rights"
        next_step = f"if you trust everybody who can write there, say --trust {url}; else store it as .skops or .onnx"
        raise ConversionRefused(f"load {url}", found, next_step)
    notice(f"loading {fetched.path.name} runs the code in it, with your rights")


def _begins(name: str, prefix: str) -> bool:
    return (
        bool(prefix) and name.startswith(prefix) and (name[len(prefix) :][:1] in ("", *"/@#:") or prefix[-1] in "/@#:")
    )


def _local(path: Path) -> Fetched:
    if path.is_dir() and (path / "MLmodel").is_file():
        from convert.sources import mlflow_model

        return mlflow_model.read(path, source=path.resolve().name, run="", local=True)
    if not path.is_file():
        raise NotFound(f"read the model {path}", "there is no such file", "check the path")
    return Fetched(path, path.name, format_of(path), local=True)
