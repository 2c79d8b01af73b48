"""The table of extras says what pyproject.toml installs, and what is lacking of them."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from appliance import extras

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
# Distributions that are large or hold others back are in environments of their own: the module has the same name.
SAME_NAME = {
    "boto3": "boto3",
    "dvc": "dvc",
    "flask-swagger-ui": "flask_swagger_ui",
    "mlflow-skinny": "mlflow",
    "ray": "ray",
    "xgboost": "xgboost",
}


def test_every_extra_has_the_modules_of_its_distributions():
    distribution_of = packages_distributions()
    named = PROJECT["optional-dependencies"]
    assert set(extras.MODULES) == set(named)
    for extra, requirements in named.items():
        wanted = {re.split(r"[\[<>=]", one)[0] for one in requirements}
        brought = set()
        for module in extras.MODULES[extra]:
            top = module.partition(".")[0]
            here = wanted & set(distribution_of.get(top, ())) or {name for name in wanted if SAME_NAME.get(name) == top}
            assert here, f"{extra}: {module} is of none of {wanted}"
            brought |= here
        assert brought == wanted


def test_what_is_lacking_is_found_without_importing_it(monkeypatch):
    monkeypatch.setitem(extras.MODULES, "cbor", ("cbor2_that_is_absent", "no_package.module", "msgspec", "antigravity"))
    assert extras.lacking("cbor") == ["cbor2_that_is_absent", "no_package.module"]
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("extra", extras.MODULES)
def test_the_binary_sends_to_a_python_environment(monkeypatch, extra):
    assert extras.how_to_get(extra) == f"pip install 'edge-inference-appliance[{extra}]'"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert extras.how_to_get(extra).startswith("the binary takes no more extras; in a Python environment: pip install")
