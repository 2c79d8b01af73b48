"""The repository's own promises: what its pages say is there, and what must never be committed is not."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9, _-]+\])?==", re.MULTILINE)
"""A locked package: its name, and the extras that it is locked with."""


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_links_of_the_pages_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    dead = [
        (page.name, link)
        for page in pages
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert dead == []


def test_navigation_of_the_site_names_every_page_once():
    named = re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(named) == sorted(pages)


def test_lines_of_the_pages_are_short_outside_of_tables_and_code():
    long = []
    written = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "coverage.md"]  # which a program writes
    for page in [ROOT / "README.md", *written]:
        prose = re.sub(r"^ *```.*?^ *```", lambda code: "\n" * code[0].count("\n"), page.read_text(), flags=re.M | re.S)
        rest = (
            (number, line) for number, line in enumerate(prose.splitlines(), 1) if not line.startswith(("|", "    "))
        )
        long += [f"{page.name}:{number}" for number, line in rest if len(line) > 120]
    assert long == []


def test_commands_that_readme_shows_first_are_targets():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    first = re.findall(r"^    make (\w+)", readme, re.MULTILINE)
    assert first == ["run", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in first)


def test_lock_files_pin_every_package_by_hash_and_name_no_host():
    for name in ("device", "shipped", "convert", "run", "dev", "docs"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert "http" not in PIN.sub("", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE))
        pins = PIN.findall(text)
        assert pins
        assert text.count("==") >= len(pins)
        for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_locks_hold_every_dependency_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = {
        "device": project["project"]["dependencies"],
        "convert": project["project"]["optional-dependencies"]["convert"],
        "shipped": [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["docs"]],
        "run": groups["run"],
        "dev": [entry for name in ("run", "test", "lint") for entry in groups[name] if isinstance(entry, str)],
    }
    for name, entries in wanted.items():
        locked = set(PIN.findall((ROOT / f"requirements/{name}.txt").read_text()))
        named = {re.split(r"[\[<>=]", entry)[0] for entry in entries}
        assert named <= locked, name


def test_device_brings_nothing_heavy():
    for name in ("device", "shipped"):
        locked = (ROOT / f"requirements/{name}.txt").read_text()
        for heavy in ("scikit-learn", "skl2onnx", "onnx==", "pandas", "scipy", "joblib", "sympy", "torch", "pydantic"):
            assert not re.search(rf"^{heavy}", locked, re.MULTILINE), heavy


def test_what_is_shipped_is_the_device_and_the_viewer_of_docs():
    device, shipped = (
        set(PIN.findall((ROOT / f"requirements/{name}.txt").read_text())) for name in ("device", "shipped")
    )
    assert shipped - device == {"flask-swagger-ui"}
    assert device <= shipped


def test_nothing_large_or_binary_is_committed():
    for path in _tracked():
        content = path.read_bytes()
        assert len(content) < 1_000_000, path
        assert b"\0" not in content, path


def test_environment_of_the_sources_has_what_their_tests_import():
    folder = ROOT / "tests" / "convert" / "sources" / "registries"
    files = [*folder.glob("*.py"), *(parent / "conftest.py" for parent in folder.parents if ROOT in parent.parents)]
    trees = [ast.parse(file.read_text()) for file in files if file.exists()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    others = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"appliance", "convert", "tests"}
    pinned = set(PIN.findall((ROOT / "requirements" / "sources.txt").read_text()))
    packages = {"sklearn": "scikit-learn", "xgboost": "xgboost-cpu", "yaml": "pyyaml"}
    assert {packages.get(name, name.replace("_", "-")) for name in others} <= pinned
