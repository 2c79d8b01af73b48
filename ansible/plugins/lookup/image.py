"""Reads which container image an archive on the controller holds."""

from __future__ import annotations

DOCUMENTATION = r"""
name: image
short_description: Tell which container image an archive on the controller holds
version_added: "1.0.0"
author:
  - The Inference Appliance authors
description:
  - Reads archives as C(docker save) and C(make images) write them, compressed or not.
options:
  _terms:
    description: Files on the controller.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
- name: Show the image's tag
  ansible.builtin.debug:
    msg: "{{ lookup('inference.appliance.image', 'edge-inference-appliance-1.0.0-linux-amd64.tar.gz').tag }}"
"""

RETURN = r"""
_raw:
  description: Of each archive the tag, the id (SHA-256 of the image's configuration) and the architecture of its image.
  type: list
  elements: dict
"""

import hashlib  # noqa: E402 - Ansible wants the documentation first
import json  # noqa: E402
import tarfile  # noqa: E402

from ansible.errors import AnsibleLookupError  # noqa: E402

from ansible.plugins.lookup import LookupBase  # noqa: E402

LARGEST = 4 * 1024 * 1024
"""Bytes of a JSON member; layers are larger or are no JSON."""


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms, variables=None, **kwargs):
        """Return which image each archive holds."""
        return [described(term) for term in terms]


def described(file):
    """Return the {tag, id, arch} of the one image in an archive."""
    try:
        with tarfile.open(file) as archive:
            image, config = _found(archive)
        return {
            "tag": image["RepoTags"][0],
            "id": "sha256:" + hashlib.sha256(config).hexdigest(),
            "arch": json.loads(config)["architecture"],
        }
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, tarfile.TarError) as error:
        raise AnsibleLookupError(f"image {file}: it holds no single, tagged image ({error})") from error


def _found(archive):
    """Return (the manifest's one entry, its configuration); no further than needed, since layers are large."""
    small = {}
    for member in archive:
        if member.isfile() and member.size <= LARGEST:
            small[member.name] = archive.extractfile(member).read()
        if "manifest.json" in small:
            (image,) = json.loads(small["manifest.json"])
            if image["Config"] in small:
                return image, small[image["Config"]]
    raise KeyError("manifest.json")
