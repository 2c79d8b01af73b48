#!/usr/bin/python
"""Reads how a host's appliance is: program, models, readiness, counters over a while, and answers to known rows."""

from __future__ import annotations

DOCUMENTATION = r"""
module: readings
short_description: Read how a host's appliance is
version_added: "1.0.0"
author:
  - The Inference Appliance authors
description:
  - Reads the program's version, the models, the service's readiness and its counters over a while, and asks the running
    service for the answers to the bundle's own examples (C(appliance probe)).
  - Changes nothing but, with O(note), the journal.
options:
  url:
    description: Where the service answers, as seen from the host; by default where it says so itself, over TLS too.
    type: str
    default: ""
  tokens_file:
    description: The service's file of tokens on the host, where it asks for one; the first token in it is used.
    type: path
  command:
    description: The command on the host.
    type: path
    default: /usr/local/bin/appliance
  program_file:
    description: A file on the host that differs between builds of the program; its SHA-256 is returned.
    type: path
  journal:
    description: A folder on the host that a rollout writes before its first change and deletes after its last one.
    type: path
  note:
    description:
      - Whether to write what was read into O(journal), on the disk before anything is changed.
      - Where a rollout that was cut off has left one, nothing is read or written, and what it noted is returned.
    type: bool
    default: false
  keep:
    description: The folder of settings and secrets, to keep in O(journal) too, where the program is installed.
    type: path
  wanted:
    description: Versions that must serve, by the model's name; they are waited for.
    type: dict
    default: {}
  wait:
    description: Seconds to wait for readiness and for the versions O(wanted).
    type: float
    default: 0
  soak:
    description: Seconds during which readiness and counters are watched.
    type: float
    default: 0
  probe:
    description: Models whose examples are asked of the running service.
    type: list
    elements: str
    default: []
  repeat:
    description: How often each example is asked, for the latency.
    type: int
    default: 5
attributes:
  check_mode:
    description: Reads in check mode too, and writes nothing then.
    support: full
  diff_mode:
    description: The journal is no state that one compares.
    support: none
"""

EXAMPLES = r"""
- name: Read how the host is, over a minute
  inference.appliance.readings:
    wanted: {iris: 1.1.0}
    wait: 30
    soak: 60
    probe: [iris]
"""

RETURN = r"""
readings:
  description: What was read.
  type: dict
  returned: always
  contains:
    installed: {description: Whether the command is there, type: bool, returned: always}
    program: {description: The program's version, type: str, returned: always}
    program_digest: {description: SHA-256 of O(program_file), type: str, returned: always}
    unfinished: {description: Whether a rollout was cut off here, type: bool, returned: always}
    status: {description: What C(appliance status) says, type: dict, returned: always}
    models: {description: The models by name, type: dict, returned: always}
    ready: {description: Whether the service is ready and serves what is wanted, type: bool, returned: always}
    reasons: {description: Why it is not, type: list, elements: str, returned: always}
    window: {description: What was seen while it was watched, type: dict, returned: always}
    probes: {description: What the probe of each model gave, type: dict, returned: always}
"""

import hashlib  # noqa: E402 - Ansible wants the documentation first
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.inference.appliance.plugins.module_utils import journal, service, store  # noqa: E402


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": ""},
            "tokens_file": {"type": "path", "no_log": False},  # a path, not a secret
            "command": {"type": "path", "default": store.COMMAND},
            "program_file": {"type": "path"},
            "journal": {"type": "path"},
            "note": {"type": "bool", "default": False},
            "keep": {"type": "path"},
            "wanted": {"type": "dict", "default": {}},
            "wait": {"type": "float", "default": 0},
            "soak": {"type": "float", "default": 0},
            "probe": {"type": "list", "elements": "str", "default": []},
            "repeat": {"type": "int", "default": 5},
        },
        required_if=[("note", True, ("journal",))],
        supports_check_mode=True,
    )
    asked = module.params
    try:
        noted = journal.read(asked["journal"]) if asked["note"] else None
        readings = read(module) if noted is None else noted
        writes = asked["note"] and noted is None
        if writes and not module.check_mode:
            journal.write(asked["journal"], readings, asked["keep"] if readings["installed"] else None)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"journal {asked['journal']}: {error}")
    module.exit_json(changed=writes, readings=readings)


def read(module):
    """Return the readings."""
    asked = module.params
    at = service.Service(lambda: _where(module), first_token(asked["tokens_file"]))
    ready, reasons = service.wait_for(at, asked["wanted"], asked["wait"])
    window = service.watch(at, asked["soak"]) if asked["soak"] else {}
    probes = {name: _probe(module, name) for name in asked["probe"]}
    status, trouble = _status(module)  # at the end: by then the host may have a verdict
    return {
        "installed": module.get_bin_path(asked["command"]) is not None,
        "program": status.get("appliance", ""),
        "program_digest": _digest(asked["program_file"]),
        "unfinished": journal.is_there(asked["journal"]),
        "status": status,
        "models": {model["name"]: model for model in status.get("models", [])},
        "ready": ready,
        "reasons": [*trouble, *reasons],
        "window": window,
        "probes": probes,
    }


def first_token(file):
    """Return the first token in a file of `SCOPE TOKEN` lines; "" without one."""
    try:
        with Path(file or "").open() as opened:
            lines = [line.split() for line in opened if not line.lstrip().startswith("#")]
    except OSError:
        return ""
    return next((words[1] for words in lines if len(words) == 2), "")


def _where(module):
    """Return (the service's URL, its certificate, its key): as O(url) says, else as the host does."""
    if module.params["url"]:
        return module.params["url"], "", ""
    status, _ = _status(module)
    return service.where(status)


def _status(module):
    """Return (what `appliance status` says, why it does not)."""
    command = module.params["command"]
    if module.get_bin_path(command) is None:
        return {}, [f"{command} is not installed"]
    try:
        return store.ask(module.run_command, command, "status"), []
    except store.Failed as error:
        return {}, [str(error)]


def _probe(module, name):
    """Return the exit code of a probe and what it printed."""
    line = [module.params["command"], "probe", name, "--json", "--repeat", str(module.params["repeat"])]
    if module.get_bin_path(line[0]) is None:
        return {"code": 127, "document": {}, "error": f"{line[0]} is not installed"}
    code, out, err = module.run_command(line)
    return {"code": code, "document": service.document(out), "error": store.told(err) if code else ""}


def _digest(file):
    """Return the SHA-256 of a file; "" where it is absent."""
    try:
        return hashlib.sha256(Path(file or "").read_bytes()).hexdigest()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
