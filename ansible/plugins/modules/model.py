#!/usr/bin/python
"""Brings one model of the appliance's store into a stated state, by the command `appliance`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model
short_description: Bring a model of the appliance's store into a stated state
version_added: "1.0.0"
author:
  - The Inference Appliance authors
description:
  - Installs, activates, marks good, rolls back or deactivates a version of a model, by the command C(appliance) on the
    host.
  - An activation runs the bundle's self-test on the host's own processor; when it fails, the old version keeps serving.
options:
  name:
    description: The model's name.
    type: str
    required: true
  version:
    description: The version that is meant; with O(state=back), when left out, the version that served before.
    type: str
    default: ""
  state:
    description:
      - V(installed) puts O(file) into the store; V(active) makes the version serve.
      - V(canary) lets it answer a rising share of the requests beside the version that serves, until the host itself
        makes it active or takes it back; where no version serves, it is the same as V(active).
      - V(good) ends the active version's probation; V(back) returns to the version before, or to O(version), and ends
        an experiment.
      - V(inactive) lets no version serve; what is installed stays.
    type: str
    choices: [installed, active, canary, good, back, inactive]
    required: true
  wait:
    description: Seconds within which the host must have ended a canary, for O(state=canary); 0 does not wait.
    type: float
    default: 0
  file:
    description: The bundle on the host, for O(state=installed).
    type: path
  sha256:
    description: The SHA-256 that O(file) must have, before anything is done with it.
    type: str
    default: ""
  keys:
    description: Public keys (PEM) on the host, one of which must have signed O(file).
    type: list
    elements: path
    default: []
  inputs_changed:
    description:
      - Whether the version goes live also where its inputs, outputs or labels differ from the active version's, for
        O(state=active) and O(state=canary). Going back asks nobody.
    type: bool
    default: false
  why:
    description: The reason, for the host's receipts.
    type: str
    default: Ansible
  command:
    description: The command on the host.
    type: path
    default: /usr/local/bin/appliance
attributes:
  check_mode:
    description: Tells what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows the versions and which one is active, before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install the bundle
  inference.appliance.model:
    name: iris
    version: 1.1.0
    file: /var/cache/appliance/iris-1.1.0.bundle
    keys: [/var/cache/appliance/plant.key.pub]
    state: installed

- name: Let it serve
  inference.appliance.model:
    name: iris
    version: 1.1.0
    state: active
"""

RETURN = r"""
model:
  description: The model's record afterwards, in check mode the one that is expected.
  type: dict
  returned: success
  sample: {name: iris, active: 1.1.0, previous: 1.0.0, state: probation, versions: [1.0.0, 1.1.0]}
refused:
  description: Whether it was refused for the bundle's signature, its proof or its self-test.
  type: bool
  returned: failure
"""

import time  # noqa: E402 - Ansible wants the documentation first

from ansible.module_utils.basic import AnsibleModule  # noqa: E402 - Ansible wants the documentation first
from ansible_collections.inference.appliance.plugins.module_utils import store  # noqa: E402

STATES = ["installed", "active", "canary", "good", "back", "inactive"]
PAUSE_SECONDS = 5.0
"""Between two looks at a canary that is waited for."""
SHOWN = ("versions", "active", "state", "previous")


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": STATES, "required": True},
            "wait": {"type": "float", "default": 0},
            "file": {"type": "path"},
            "sha256": {"type": "str", "default": ""},
            "keys": {"type": "list", "elements": "path", "default": [], "no_log": False},  # paths, not secrets
            "inputs_changed": {"type": "bool", "default": False},
            "why": {"type": "str", "default": "Ansible"},
            "command": {"type": "path", "default": store.COMMAND},
        },
        required_if=[("state", state, ("version",)) for state in ("installed", "active", "canary")],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**brought(module))
    except store.Failed as error:
        module.fail_json(msg=str(error), refused=error.refused)


def brought(module):
    """Return the module's result. Raises store.Failed."""
    asked, command = module.params, module.params["command"]
    # Where the program is not there yet, check mode says what will be done on an empty store.
    installed = module.get_bin_path(command) is not None
    listed = store.ask(module.run_command, command, "models") if installed or not module.check_mode else {"models": []}
    before = store.record_of(listed, asked["name"])
    if asked["state"] == "good" and asked["version"] not in ("", before["active"]) and not module.check_mode:
        module.fail_json(
            msg=f"{asked['name']}: {before['active']} is active, so {asked['version']} cannot be marked good"
        )
    words, after = store.plan(before, asked["state"], asked["version"])
    if words and not module.check_mode:
        if words == ("install",):
            words += (checked(module),)
        if asked["inputs_changed"] and words[0] in ("activate", "canary"):
            words += (store.INPUTS_CHANGED,)
        store.change(module.run_command, command, words, asked["why"], back=asked["state"] == "back")
    waits = asked["state"] == "canary" and asked["wait"] and before["active"] not in (None, asked["version"])
    if waits and not module.check_mode:
        awaited(module)
    if (words or waits) and not module.check_mode:
        after = store.record_of(store.ask(module.run_command, command, "models"), asked["name"])
    return {"changed": bool(words), "model": after, "diff": {"before": _shown(before), "after": _shown(after)}}


def awaited(module):
    """Wait until the host has made a canary active; fail with its reason where it has not. Raises store.Failed."""
    asked = module.params
    deadline = time.monotonic() + asked["wait"]
    while True:
        told = store.ask(module.run_command, asked["command"], "experiment", asked["name"])
        ended, why = store.verdict(told, asked["version"])
        if ended and not why:
            return
        if ended or time.monotonic() >= deadline:
            late = "" if ended else f" (within {asked['wait']:g} s)"
            module.fail_json(msg=f"{asked['name']} {asked['version']} is not active{late}: {why}", refused=ended)
        time.sleep(PAUSE_SECONDS)


def checked(module):
    """Return the bundle's file, once it is the one that was meant, whole and signed right. Raises store.Failed."""
    asked = module.params
    file = asked["file"] or module.fail_json(msg="state=installed needs file: the bundle on the host")
    found = module.sha256(file) if asked["sha256"] else ""
    if found != asked["sha256"]:
        module.fail_json(msg=f"{file}: its SHA-256 is {found}, stated is {asked['sha256']}", refused=True)
    keys = [word for key in asked["keys"] for word in ("--key", key)]
    store.ask(module.run_command, asked["command"], "verify", file, *keys)
    return file


def _shown(record):
    """Return the part of a record that a difference shows."""
    return {key: record.get(key) for key in SHOWN}


if __name__ == "__main__":
    main()
