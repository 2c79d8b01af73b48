"""Tells what an offline kit on the controller is, and whether it is signed by a trusted key."""

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
    msg: "{{ lookup('inference.appliance.kit', 'dist/appliance-0.1.0-linux-x86_64.tar.gz').version }}"
"""

RETURN = r"""
_raw:
  description: Of each kit its folder, version, arch, glibc, and the SHA-256 of its SHA256SUMS as digest.
  type: list
  elements: dict
"""

import base64  # noqa: E402 - Ansible wants the documentation first
import hashlib  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import tarfile  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.errors import AnsibleLookupError  # noqa: E402
from cryptography.exceptions import InvalidSignature  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: E402

from ansible.plugins.lookup import LookupBase  # noqa: E402

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----")
UNLISTED = ("SHA256SUMS", "model.sig")


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms, variables=None, **kwargs):
        """Return what each kit is."""
        self.set_options(var_options=variables, direct=kwargs)
        key = self.get_option("key")
        try:
            return [described(Path(term), Path(key) if key else None) for term in terms]
        except (OSError, EOFError, ValueError, KeyError, tarfile.TarError, InvalidSignature) as error:
            found = str(error) or "its signature is not of that key"
            raise AnsibleLookupError("kit {}: {}".format(", ".join(terms), found)) from error


def described(file, key=None):
    """Return the kit's {folder, version, arch, glibc, digest}. Raises what LookupModule.run names."""
    if key:
        check(file, key)
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


def check(file, key):
    """Check that every file of a kit is as its signer left it (OpenSSF Model Signing v1.0, ECDSA P-256, key mode)."""
    digests, kept = {}, {}
    with tarfile.open(file) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if member.isfile():
                digests[name] = _digest(archive.extractfile(member))
                if name in UNLISTED:
                    kept[name] = archive.extractfile(member).read()
            elif not member.isdir():
                raise ValueError(f"{member.name} is neither a file nor a folder")
    if "model.sig" not in kept:
        raise ValueError("it is not signed")
    signed = signed_digests(kept["model.sig"], key.read_bytes())
    if signed.get("SHA256SUMS") != digests.get("SHA256SUMS"):
        raise ValueError("its SHA256SUMS is not what was signed")
    listed = {line[66:]: line[:64] for line in kept["SHA256SUMS"].decode().splitlines()}
    wrong = sorted(name for name in {*listed, *digests} - {*UNLISTED} if listed.get(name) != digests.get(name))
    if wrong:
        raise ValueError("damaged or not part of it: {}".format(", ".join(wrong[:3])))


def signed_digests(bundle, key):
    """Return {name: SHA-256} that the signature vouches for. Raises InvalidSignature, ValueError, KeyError."""
    envelope = json.loads(bundle)["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    # DSSE's pre-authentication encoding
    message = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    _check_signed(key, signature, message)
    resources = json.loads(payload)["predicate"]["resources"]
    return {one["name"]: one["digest"] for one in resources}


def _check_signed(key, signature, message):
    """Raise InvalidSignature unless a key of the file signed; it may hold several, and nothing beside them."""
    found = PUBLIC_KEY.findall(key)
    if not found or PUBLIC_KEY.sub(b"", key).strip():
        raise ValueError("the key's file holds no public key, or something beside public keys")
    for pem in found:
        try:
            return load_pem_public_key(pem).verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
    raise InvalidSignature


def _digest(stream):
    """Return a stream's SHA-256."""
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()
