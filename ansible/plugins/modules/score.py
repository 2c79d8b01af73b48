#!/usr/bin/python
"""Scores one part of some files on a host, unless that is done, and holds it ready to be fetched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: score
short_description: Score one part of some files
version_added: "1.1.0"
author:
  - The Inference Appliance authors
description:
  - Runs C(appliance score --shard PART/OF). A part that was scored before from the same files, by the same version,
    with the same options, is not scored again; one that was cut off goes on.
  - The part is written by the service's user below O(folder), then moved to O(hold), which that user cannot write.
options:
  model:
    description: Name of the model, or path of a bundle on the host.
    type: str
    required: true
  inputs:
    description: Files or folders on the host, the same on every host.
    type: list
    elements: path
    required: true
  part:
    description: Which part, from 1.
    type: int
    required: true
  of:
    description: How many parts there are.
    type: int
    required: true
  version:
    description: The version that answers; without it the active one.
    type: str
    default: ""
  format:
    description: Format of files whose name does not tell it.
    type: str
    default: ""
  keep:
    description: Columns of the input to keep, [none] for none; without any, all.
    type: list
    elements: str
    default: []
  provenance:
    description: Whether to add the columns model, version and id.
    type: bool
    default: false
  bad_rows:
    description: What bad rows do; with C(quarantine) any number is taken, and told.
    type: str
    choices: [stop, quarantine]
    default: stop
  processes:
    description: How many processes score, 0 for as many as there are processors.
    type: int
    default: 0
  quality:
    description: Whether to add the column quality, how far to trust a row.
    type: bool
    default: false
  observe:
    description: Whether the rows count for drift, and the prediction log has a sample of them.
    type: bool
    default: false
  resume:
    description: Whether to go on where a run stopped.
    type: bool
    default: true
  folder:
    description: Folder on the host that the service's user may write.
    type: path
    required: true
  hold:
    description: Folder on the host for what is to be fetched, and for the record of it.
    type: path
    required: true
  there:
    description: What the controller has already, {name, SHA-256}; it is not made again.
    type: dict
    default: {}
  owner:
    description: Who may fetch the part; without it whoever became root by C(sudo).
    type: str
    default: ""
  command:
    description: The command on the host.
    type: path
    default: /usr/local/bin/appliance
attributes:
  check_mode:
    description: Tells whether the part would be scored and changes nothing.
    support: full
  diff_mode:
    description: Rows are no state that one compares.
    support: none
"""

EXAMPLES = r"""
- name: Score the first of two parts
  inference.appliance.score:
    model: iris
    inputs: [/srv/rows.csv]
    part: 1
    of: 2
    folder: /var/lib/appliance/scored/rows
    hold: /var/cache/appliance/scored/rows
"""

RETURN = r"""
part:
  description: What C(appliance score --json) said of the part, and C(files) of it, by name with their SHA-256.
  type: dict
  returned: success, but for check mode
held:
  description: Paths on the host that are to be fetched.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402 - Ansible wants the documentation first
import pwd  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.inference.appliance.plugins.module_utils import scored, store  # noqa: E402


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "model": {"type": "str", "required": True},
            "inputs": {"type": "list", "elements": "path", "required": True},
            "part": {"type": "int", "required": True},
            "of": {"type": "int", "required": True},
            "version": {"type": "str", "default": ""},
            "format": {"type": "str", "default": ""},
            "keep": {"type": "list", "elements": "str", "default": [], "no_log": False},  # columns, not secrets
            "provenance": {"type": "bool", "default": False},
            "bad_rows": {"type": "str", "choices": ["stop", "quarantine"], "default": "stop"},
            "processes": {"type": "int", "default": 0},
            "quality": {"type": "bool", "default": False},
            "observe": {"type": "bool", "default": False},
            "resume": {"type": "bool", "default": True},
            "folder": {"type": "path", "required": True},
            "hold": {"type": "path", "required": True},
            "there": {"type": "dict", "default": {}},
            "owner": {"type": "str", "default": ""},
            "command": {"type": "path", "default": store.COMMAND},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**done(module))
    except store.Failed as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"score part {module.params['part']} of {module.params['of']}: {error}")


def done(module):
    """Return the module's result, the part being scored. Raises store.Failed, OSError."""
    asked, hold = module.params, Path(module.params["hold"])
    record = hold / f"part-{asked['part']}-of-{asked['of']}.json"
    listed = store.ask(module.run_command, asked["command"], "models")
    job = scored.job_of(asked, scored.active(listed, asked["model"], asked["version"]))
    before = scored.read(record)
    if scored.is_done(before, job, hold, asked["there"]):
        files = [hold / name for name in before["part"]["files"]]
        return {"changed": False, "part": before["part"], "held": [str(one) for one in files if one.is_file()]}
    if module.check_mode:
        return {"changed": True, "held": []}
    hold.mkdir(parents=True, exist_ok=True)
    hold.chmod(0o711)  # the files in it are their owner's alone
    record.unlink(missing_ok=True)
    options = scored.words_of(asked)
    told = store.ask(
        module.run_command, asked["command"], "score", asked["model"], *asked["inputs"], "-o", asked["folder"], *options
    )
    part = {**told, "files": _handed_over(module, told, hold)}
    scored.write(record, {"job": job, "part": part})
    return {"changed": True, "part": part, "held": [str(hold / name) for name in part["files"]]}


def _handed_over(module, told, hold):
    """Return {name: SHA-256} of what was written, once it is ready to be fetched. Raises OSError."""
    files = [Path(one) for one in (told["rejected"], told["output"]["name"]) if one]
    found = {one.name: scored.hand_over(one, hold / one.name, _owner(module)) for one in files}
    if found[files[-1].name] != told["output"]["sha256"]:
        module.fail_json(msg=f"{files[-1]} is not what was scored: its SHA-256 is {found[files[-1].name]}")
    return found


def _owner(module):
    """Return the id of the user who may fetch what was scored, None for whoever runs this."""
    if os.geteuid() != 0:
        return None
    name = module.params["owner"]
    try:
        return pwd.getpwnam(name).pw_uid if name else int(os.environ.get("SUDO_UID", "0"))
    except KeyError:
        return module.fail_json(msg=f"there is no user {name} who could fetch the part")


if __name__ == "__main__":
    main()
