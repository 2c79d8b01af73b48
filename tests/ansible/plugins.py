"""The collection's plugins as plain modules: what they decide needs no Ansible."""

import importlib.util
from pathlib import Path
from types import ModuleType

ANSIBLE = Path(__file__).parents[2] / "ansible"


def plugin(kind: str, name: str) -> ModuleType:
    """Load plugins/KIND/NAME.py by its path; the folder `ansible` is no package."""
    spec = importlib.util.spec_from_file_location(f"plugin_{kind}_{name}", ANSIBLE / "plugins" / kind / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
