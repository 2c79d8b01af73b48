"""The units that pull bundles: as closed as the service's, and tried again only where that helps."""

import tomllib
from pathlib import Path

from appliance.cli import EXIT_CODES
from appliance.config import Config, PullConfig

PACKAGING = Path(__file__).parents[2] / "packaging"


def settings(name: str) -> list[tuple[str, str]]:
    """Return (key, value) of every line of a unit."""
    lines = (PACKAGING / "systemd" / name).read_text().splitlines()
    return [(key, value) for key, found, value in (line.partition("=") for line in lines) if found and key[0] != "#"]


def test_pulling_is_as_closed_as_serving():
    service, pulling = settings("appliance.service"), settings("appliance-pull.service")
    begin = service.index(("ProtectSystem", "strict"))
    closed = service[begin : service.index(("SystemCallErrorNumber", "EPERM")) + 1]
    assert len(closed) > 25
    assert [setting for setting in closed if setting not in pulling] == []
    assert ("User", "appliance") in pulling


def test_only_failures_that_may_pass_are_tried_again_at_once():
    kept = dict(settings("appliance-pull.service"))["RestartPreventExitStatus"].split()
    assert kept == [str(code) for _, code in sorted(EXIT_CODES, key=lambda one: one[1])]


def test_the_program_has_the_command_that_the_unit_runs():
    from appliance.cli import appliance as command

    run = dict(settings("appliance-pull.service"))["ExecStart"]
    assert command.get_command(None, run.split()[1]) is not None  # type: ignore[arg-type]


def test_nothing_is_pulled_by_the_configuration_that_is_shipped():
    text = (PACKAGING / "offline" / "appliance.toml").read_text()
    # Not even the section: an older program, to which a host returns, does not know it.
    assert "pull" not in tomllib.loads(text)
    assert "# [pull]" in text
    assert Config().pull == PullConfig()
    assert Config().pull.source == ""
