"""Prints docs/ansible-variables.md from what the roles and the playbooks check: it says what every variable means."""

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).parent / "roles"
PLAYBOOKS = Path(__file__).parent / "playbooks"
ORDER = ("appliance", "bundle", "broker")
HEAD = ("| Variable | Type | Default | Meaning |", "|---|---|---|---|")


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


def page() -> str:
    """Return the page."""
    lines = [
        "# Variables of the Ansible roles",
        "",
        "Derived from `ansible/roles/*/meta/argument_specs.yml` and `ansible/playbooks/vars/arguments.yml` by",
        "`make ansible-docs`; checked at the start.",
        "How they are used: [how to roll out](how-to/roll-out.md).",
    ]
    for role in ORDER:
        lines += _role(role)
    lines += ["", "## Playbooks", "", "Beside the variables of the roles that they run."]
    told: set[str] = set()
    for playbook, options in arguments().items():
        new = {name: option for name, option in options.items() if name not in told}
        told |= set(new)
        title = f"`{playbook}.yml`" if len(told) > len(new) else "All of them"
        lines += ["", f"### {title}", "", *HEAD, *_rows(new, "")]
    return "\n".join(lines) + "\n"


def specs(role: str) -> dict[str, Any]:
    """Return a role's argument specs by entry point."""
    loaded = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = loaded["argument_specs"]
    return found


def arguments() -> dict[str, Any]:
    """Return what each playbook is given, by the playbook's name."""
    loaded = yaml.safe_load((PLAYBOOKS / "vars" / "arguments.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = loaded["appliance__playbooks"]
    return found


def _role(role: str) -> list[str]:
    """Return the lines on one role; an option of several entry points is told at the first."""
    told: set[str] = set()
    lines: list[str] = []
    for entry, spec in specs(role).items():
        new = {name: option for name, option in spec["options"].items() if name not in told}
        told |= set(new)
        title = f"`inference.appliance.{role}`" + ("" if entry == "main" else f", entry point `{entry}`")
        if new:
            lines += ["", f"## {title}", "", _plain(spec["short_description"])]
            described = spec.get("description", [])
            more = [textwrap.fill(f"- {_plain(text)}", 120, subsequent_indent="  ") for text in described]
            lines += ["", *more] if more else []
            lines += ["", *HEAD, *_rows(new, "")]
    return lines


def _rows(options: dict[str, Any], prefix: str) -> list[str]:
    """Return the table's rows, those of an option's own options after it."""
    rows = []
    for name, option in options.items():
        kind = f"list of {option['elements']}" if option["type"] == "list" else option["type"]
        if "choices" in option:
            kind = " \\| ".join(f"`{choice}`" for choice in option["choices"])
        default = (
            "required"
            if option.get("required")
            else f"`{json.dumps(option['default'])}`"
            if "default" in option
            else ""
        )
        rows.append(f"| `{prefix}{name}` | {kind} | {default} | {_plain(option['description'])} |")
        rows += _rows(option.get("options", {}), f"{prefix}{name}[].")
    return rows


def _plain(text: str) -> str:
    """Return a description with Ansible's marks as Markdown."""
    return re.sub(r"\b[COV]\(([^)]*)\)", r"`\1`", text)


if __name__ == "__main__":
    main()
