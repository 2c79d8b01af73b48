"""Turns an installed environment into the image's content: trimmed, compiled, all dates equal. The Dockerfile runs it.

python finish.py IMAGE     moves the environment of this Python to IMAGE, a folder that is copied over the base's root
"""

import compileall
import importlib
import os
import pkgutil
import py_compile
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

UNUSED = {
    "onnxruntime/capi/libonnxruntime.so*": "onnxruntime for C programs; Python's module has it linked in",
    "onnxruntime/transformers": "prepares transformer models for training and export",
    "onnxruntime/quantization": "makes models smaller, on the build machine",
    "onnxruntime/tools": "converts models, on the build machine",
    "onnxruntime/datasets": "example models",
    "flask_swagger_ui/dist/swagger-ui.js": "Swagger UI for programs that bundle it themselves",
    "flask_swagger_ui/dist/swagger-ui-standalone-preset.js": "its bar for choosing a document by address",
    "numpy/f2py": "compiles Fortran",
    "numpy/distutils": "builds extensions (gone since Python 3.12)",
    "numpy/_core/include": "headers for extensions",
    "numpy/_core/lib": "static libraries for extensions",
    "numpy/**/tests": "numpy's own tests",
    "**/*.pyi": "types for editors",
}
"""Pattern under site-packages -> why the service never opens it."""
ABSENT_SINCE_312 = {"numpy/distutils"}
DATE = 315_532_800
"""Of every file, in seconds since 1970: 1980-01-01, the first that a zip archive knows.

Not the commit's: the engine takes a COPY whose content is the same from its cache, with the dates of an earlier commit.
So the layer changes when its content does, and only then.
"""
STATE = "var/lib/appliance"
USER = 10001


def main(image: Path) -> None:
    """Finish the environment of this Python."""
    site = Path(sysconfig.get_path("purelib"))
    saved = sum(trim(site).values())
    compileall.compile_dir(site, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    compiled = compile_standard_library(image)
    environment = Path(sys.prefix)
    target = image / environment.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(environment, target)
    state = image / STATE
    state.mkdir(parents=True)
    os.chown(state, USER, 0)
    state.chmod(0o770)
    date(image)
    print(f"left out {saved / 1e6:.0f} MB, compiled {compiled} modules of the standard library")


def trim(site: Path) -> dict[str, int]:
    """Delete what UNUSED names and return the bytes that each pattern freed; one that finds nothing is an error."""
    freed = {}
    for pattern in UNUSED:
        found = sorted(site.glob(pattern))
        if not found and not (pattern in ABSENT_SINCE_312 and sys.version_info >= (3, 12)):
            sys.exit(f"finish.py: {pattern} is no longer there; take it out of UNUSED")
        freed[pattern] = sum(_delete(path) for path in found)
    return freed


def compile_standard_library(image: Path) -> int:
    """Compile into `image` what the service imports of the standard library and the base image left uncompiled.

    Python's own images hold no bytecode, and a read-only root cannot keep any: each start would compile it again.
    """
    for module in pkgutil.walk_packages(importlib.import_module("appliance").__path__, "appliance."):
        importlib.import_module(module.name)
    standard = Path(sysconfig.get_path("stdlib"))
    count = 0
    for source in sorted(_sources()):
        cached = Path(cache_from_source(str(source)))
        if source.is_relative_to(standard) and not cached.exists():
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(source), str(image / cached.relative_to("/")), doraise=True, invalidation_mode=mode)
            count += 1
    return count


def date(folder: Path) -> None:
    """Give everything in `folder` one date, and modes that do not depend on who built it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink() and path != folder / STATE:
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (DATE, DATE), follow_symlinks=False)


def _delete(path: Path) -> int:
    """Delete a file or folder; return its bytes."""
    if not path.exists():  # went with a folder that another match held
        return 0
    if not path.is_dir():
        size = path.stat().st_size
        path.unlink()
        return size
    size = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    shutil.rmtree(path)
    return size


def _sources() -> Iterator[Path]:
    """Yield the source file of every module that is loaded."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py"):
            yield Path(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
