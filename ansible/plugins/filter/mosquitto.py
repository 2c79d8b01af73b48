"""Hashes passwords as mosquitto 2 keeps them, so that a file of users can be written and compared without it."""

from __future__ import annotations

import base64
import hashlib

DOCUMENTATION = r"""
name: mosquitto_hash
short_description: Hash a password as mosquitto keeps it
version_added: "1.0.0"
author:
  - The Inference Appliance authors
description:
  - Gives what mosquitto 2 writes behind a user's name, PBKDF2 with SHA-512. The salt is derived from the password, the
    user and the host, so that a second run writes the same and says that nothing has changed.
positional: user, host
options:
  _input:
    description: The password.
    type: str
    required: true
  user:
    description: The user's name.
    type: str
    required: true
  host:
    description: The host, so that equal passwords look different on each.
    type: str
    required: true
"""

EXAMPLES = r"""
line: "line:{{ broker_password | inference.appliance.mosquitto_hash('line', inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The hash, C($7$ITERATIONS$SALT$HASH).
  type: str
"""

ITERATIONS = 20_000
"""mosquitto_passwd takes 101; a reader follows whatever number stands in the file."""
SALT_BYTES = 12


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self):
        """Return them by name."""
        return {"mosquitto_hash": mosquitto_hash}


def mosquitto_hash(password, user, host):
    """Return a password's hash in mosquitto's format 7."""
    # By the same slow function: a quick one would let a thief of the file try passwords quickly.
    salt = hashlib.pbkdf2_hmac("sha512", password.encode(), f"{user}\0{host}".encode(), ITERATIONS)[:SALT_BYTES]
    hashed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(hashed).decode()}"
