"""Reads what an offline kit on the controller is, and checks its signature by a trusted key."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kit
short_description: Tell what an offline kit on the controller is
version_added: "1.0.0"
author:
  - The Inference Appliance authors
description:
  - Reads C(kit.conf) and C(SHA256SUMS) of kits (C(appliance-VERSION-linux-ARCH.tar.gz)); with O(key), also
    checks that the kit is whole and signed by that key, before any host sees it.
options:
  _terms:
    description: Files on the controller.
    type: list
    elements: path
    required: true
  key:
    description: Public key (PEM) on the controller that must have signed the kit.
    type: path
"""

EXAMPLES = r"""
- name: Show the kit's version
  ansible.builtin.debug:
    msg: "{{ lookup('inference.appliance.kit', 'dist/appliance-1.0.0-linux-x86_64.tar.gz').version }}"
"""

RETURN = r"""
_raw:
  description: Of each kit its folder, version, arch, glibc, and the SHA-256 of its SHA256SUMS as digest.
  type: list
  elements: dict
"""

import hashlib  # noqa: E402 - Ansible wants the documentation first
import tarfile  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.errors import AnsibleLookupError  # noqa: E402
from ansible_collections.inference.appliance.plugins.module_utils import kit_signature  # noqa: E402

from ansible.plugins.lookup import LookupBase  # noqa: E402


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms, variables=None, **kwargs):
        """Return what each kit is."""
        self.set_options(var_options=variables, direct=kwargs)
        key = self.get_option("key")
        try:
            return [described(Path(term), Path(key) if key else None) for term in terms]
        except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
            raise AnsibleLookupError("kit {}: {}".format(", ".join(terms), error)) from error


def described(file, key=None):
    """Return the kit's {folder, version, arch, glibc, digest}. Raises what LookupModule.run names."""
    if key:
        kit_signature.check(file, key.read_bytes())
    folder, sums, conf = "", b"", None
    with tarfile.open(file) as archive:
        for member in archive:  # stops before the program, which lies behind them
            folder, _, name = member.name.partition("/")
            if name in ("SHA256SUMS", "kit.conf"):
                content = archive.extractfile(member).read()
                sums, conf = (content, conf) if name == "SHA256SUMS" else (sums, content)
            if sums and conf:
                break
    if not sums or not conf:
        raise ValueError("it holds no SHA256SUMS and kit.conf; make one by `make kit`")
    values = dict(line.split("=", 1) for line in conf.decode().splitlines() if "=" in line)
    return {"folder": folder, "digest": hashlib.sha256(sums).hexdigest(), **values}
