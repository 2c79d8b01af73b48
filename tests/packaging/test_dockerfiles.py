"""The Dockerfiles and the compose file, read: what a build and a run of them (make images-test) would not show."""

import difflib
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AMD64 = ROOT / "packaging/docker/Dockerfile"
ARM64 = ROOT / "Dockerfile.arm64"


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return (instruction, arguments) of a Dockerfile, continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last_stage(file: Path) -> list[tuple[str, str]]:
    found = instructions(file)
    return found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]


def only(found: list[tuple[str, str]], name: str) -> str:
    (arguments,) = [rest for instruction, rest in found if instruction == name]
    return arguments


def test_the_two_files_differ_in_the_platform_alone():
    differences = [
        line[2:]
        for line in difflib.ndiff(AMD64.read_text().splitlines(), ARM64.read_text().splitlines())
        if line.startswith(("- ", "+ "))
    ]
    assert differences
    assert all(line.startswith("#") or re.match(r"FROM --platform=linux/(amd64|arm64) ", line) for line in differences)
    platforms = {file: set(re.findall(r"--platform=(\S+)", file.read_text())) for file in (AMD64, ARM64)}
    assert platforms == {AMD64: {"linux/amd64"}, ARM64: {"linux/arm64"}}
    assert [(name, rest.replace("arm64", "amd64")) for name, rest in instructions(ARM64)] == instructions(AMD64)


@pytest.fixture(params=[AMD64, ARM64], ids=["amd64", "arm64"])
def file(request) -> Path:
    return request.param


def test_every_stage_stands_on_the_base_that_the_build_chooses(file):
    found = instructions(file)
    assert found[0] == ("ARG", "BASE=python:3.12-slim-bookworm")
    bases = [re.sub(r"--platform=\S+ ", "", rest).split()[0] for name, rest in found if name == "FROM"]
    assert set(bases) <= {"${BASE}", "dependencies"}
    assert bases[-1] == "${BASE}"


def test_everything_installed_is_a_wheel_pinned_by_hash_or_our_own(file):
    installs = [rest for name, rest in instructions(file) if name == "RUN" and " install " in rest]
    assert len(installs) == 3
    for command in installs:
        fetched = "--require-hashes" in command and "--only-binary :all:" in command
        assert fetched or "--no-index" in command, command
        assert "--no-cache-dir" in command
    assert not re.search(r"apt-get|apk |curl|wget", file.read_text())


def test_the_build_tool_is_pinned_by_hash_and_names_no_host():
    text = (ROOT / "packaging/docker/build.txt").read_text()
    assert re.findall(r"^([a-z]+)==[\d.]+ \\\n +--hash=sha256:", text, re.MULTILINE) == ["setuptools"]
    assert "http" not in text


def test_dependencies_come_before_our_code_so_that_a_change_does_not_fetch_them_again(file):
    names = [rest for name, rest in instructions(file) if name == "COPY"]
    assert names[0].startswith("requirements/shipped.txt")


def test_the_last_stage_adds_one_folder_and_runs_nothing(file):
    stage = last_stage(file)
    assert only(stage, "COPY") == "--from=assembled /image/ /"
    assert "RUN" not in [name for name, _ in stage]
    assert "ADD" not in [name for name, _ in stage]


def test_it_runs_without_root_from_exec_form_with_serve_as_default(file):
    stage = last_stage(file)
    assert re.fullmatch(r"[1-9]\d{3,}:0", only(stage, "USER"))
    assert json.loads(only(stage, "ENTRYPOINT")) == ["appliance"]
    assert json.loads(only(stage, "CMD")) == ["serve"]
    check = only(stage, "HEALTHCHECK").partition("CMD ")[2]
    assert json.loads(check) == ["appliance", "status", "--ready"]


def test_state_is_in_one_volume_which_is_where_the_appliance_looks(file):
    from appliance.config import StoreConfig

    stage = last_stage(file)
    assert only(stage, "VOLUME") == only(stage, "WORKDIR") == StoreConfig().state_dir


def test_no_setting_of_the_image_opens_the_port_to_everybody(file):
    settings = only(last_stage(file), "ENV")
    assert "APPLIANCE_HTTP_AUTH" not in settings
    assert "APPLIANCE_HTTP_HOST=0.0.0.0" in settings


def test_only_what_is_built_from_enters_the_build(file):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions(file)
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_compose_runs_every_service_read_only_without_capabilities_and_by_pinned_names():
    text = (ROOT / "packaging/docker/compose.yml").read_text()
    services = re.split(r"^  (?=\w+:$)", text.partition("\nservices:\n")[2].partition("\nnetworks:")[0], flags=re.M)[1:]
    assert [service.partition(":")[0] for service in services] == ["appliance", "broker", "proxy"]
    assert all("<<: *hardened" in service and re.search(r"image: .*:\S", service) for service in services)
    hardened = text.partition("x-hardened:")[2].partition("\nservices:")[0]
    for line in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"):
        assert line in hardened
    assert "latest" not in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"{project['name']}:{project['version']}-amd64" in services[0]


def test_compose_checks_health_as_the_image_does():
    text = (ROOT / "packaging/docker/compose.yml").read_text()
    flags = dict(re.findall(r"--([a-z-]+)=(\S+)", only(last_stage(AMD64), "HEALTHCHECK")))
    in_compose = dict(re.findall(r"^      (interval|timeout|start_period|retries): (\S+)$", text, re.MULTILINE))
    assert {name.replace("-", "_"): value for name, value in flags.items()} == in_compose


def test_the_secrets_of_a_site_cannot_be_committed():
    text = (ROOT / "packaging/docker/compose.yml").read_text()
    assert set(re.findall(r"SECRETS:-\./site/(\w+)\}", text)) == {"secrets"}
    assert "secrets/" in (ROOT / "packaging/docker/site/.gitignore").read_text().split()


def test_the_page_on_containers_names_every_target_variable_and_secret():
    page = (ROOT / "docs/containers.md").read_text()
    compose = (ROOT / "packaging/docker/compose.yml").read_text()
    makefile = (ROOT / "packaging/docker/images.mk").read_text()
    named = {
        *re.findall(r"\$\{(\w+):-", compose),
        *re.findall(r"\}/([\w.-]+)\"\}", compose),
        *re.findall(r"^(\w+) \?=", makefile, re.MULTILINE),
        *(target for target in only_phony(makefile) if not target.startswith("image-test")),
    }
    assert len(named) > 15
    assert [name for name in sorted(named) if f"`{name}`" not in page and f"make {name}" not in page] == []


def only_phony(makefile: str) -> list[str]:
    return re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()


def test_the_configuration_of_the_site_is_one_that_the_appliance_takes():
    from appliance.settings import load

    config = load(ROOT / "packaging/docker/site/appliance.toml", environment={})
    assert config.mqtt.host == "broker"
    assert config.mqtt.subscriptions[0].answer == "line/{1}/species"
