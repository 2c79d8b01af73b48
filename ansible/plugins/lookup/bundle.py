"""Reads the name, version and digest of a model bundle on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bundle
short_description: Tell what a model bundle on the controller is
version_added: "1.0.0"
author:
  - The Inference Appliance authors
description:
  - Reads the name and the version in the manifest of bundles (C(NAME-VERSION.bundle)), and their SHA-256.
options:
  _terms:
    description: Files on the controller.
    type: list
    elements: path
    required: true
  stated:
    description: What the bundle must be, with its name, its version and, if given, its sha256.
    type: dict
"""

EXAMPLES = r"""
- name: Show the bundle's version
  ansible.builtin.debug:
    msg: "{{ lookup('inference.appliance.bundle', 'iris-1.1.0.bundle').version }}"
"""

RETURN = r"""
_raw:
  description: Of each bundle its name, version and sha256.
  type: list
  elements: dict
"""

import hashlib  # noqa: E402 - Ansible wants the documentation first
import json  # noqa: E402
import zipfile  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.errors import AnsibleLookupError  # noqa: E402

from ansible.plugins.lookup import LookupBase  # noqa: E402


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms, variables=None, **kwargs):
        """Return what each bundle is."""
        self.set_options(var_options=variables, direct=kwargs)
        found = [described(Path(term)) for term in terms]
        for term, one in zip(terms, found, strict=True):
            check(term, one, self.get_option("stated") or {})
        return found


def described(file):
    """Return a bundle's {name, version, sha256}."""
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return {"name": manifest["name"], "version": manifest["version"], "sha256": digest}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise AnsibleLookupError(f"bundle {file}: {error}") from error


def check(file, found, stated):
    """Raise AnsibleLookupError where a bundle is not what is stated."""
    for key in ("name", "version", "sha256"):
        if stated.get(key) and stated[key] != found[key]:
            raise AnsibleLookupError(f"bundle {file}: its {key} is {found[key]}, stated is {stated[key]}")
