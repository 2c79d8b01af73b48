"""The requests and responses of an OCI registry: references, image manifests, challenges; nothing is sent here.

Sources: opencontainers/distribution-spec spec.md (1.1), opencontainers/image-spec manifest.md (1.1), the grammar of
distribution/reference, and distribution/distribution docs/content/spec/auth/token.md.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec

from appliance.bundle.manifest import Digest
from appliance.errors import ConfigError, Refused
from appliance.pull.offers import Fault, Listing, Offer, Size

BUNDLE_TYPE = "application/vnd.edge-inference-appliance.bundle.v1+zip"
"""Media type of a layer that is a bundle."""
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MAX_BUNDLES = 64
"""In one artefact: which model a layer holds is known only when it was fetched."""
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_TITLE = "org.opencontainers.image.title"
_REPOSITORY = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_REFERENCE = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?P<port>:\d{1,5})?"
    rf"/(?P<repository>{_REPOSITORY})"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An artefact in a registry: `REGISTRY/REPOSITORY:TAG`, or `@sha256:DIGEST` for exactly this one."""

    base: str
    """`https://HOST[:PORT]`."""
    repository: str
    tag: str
    digest: str
    """SHA-256 in hexadecimal; empty where a tag says which."""

    @property
    def manifest_url(self) -> str:
        """Where its manifest is."""
        return f"{self.base}/v2/{self.repository}/manifests/{f'sha256:{self.digest}' if self.digest else self.tag}"

    def blob_url(self, sha256: str) -> str:
        """Return where a blob of its repository is."""
        return f"{self.base}/v2/{self.repository}/blobs/sha256:{sha256}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for (RFC 7235): `scheme` in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str]

    def token_url(self, repository: str) -> str:
        """Return where a token for reading `repository` is had; "" where the challenge names no such place."""
        realm = self.parameters.get("realm", "")
        if self.scheme != "bearer" or not re.match(r"https?://[^/?#]+", realm):
            return ""
        scope = self.parameters.get("scope") or f"repository:{repository}:pull"
        asked = {key: self.parameters[key] for key in ("service",) if key in self.parameters} | {"scope": scope}
        return f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}"


class _Layer(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: Size
    annotations: dict[str, str] | None = None


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    """What every manifest of either kind has."""

    schema_version: int
    media_type: str = MANIFEST_TYPE


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """An image manifest; a reader must ignore keys that it does not know."""

    layers: list[msgspec.Raw]


class _Type(msgspec.Struct, frozen=True, rename="camel"):
    """The one key of a layer that says whether it is for us."""

    media_type: str = ""


def parse_reference(text: str, scheme: str) -> ImageReference:
    """Return the reference `REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]`. Raises ConfigError when it is none."""
    found = _REFERENCE.fullmatch(text)
    if found is None or not (found["tag"] or found["digest"]):
        raise ConfigError(
            f"[pull] source oci://{text[:200]}",
            "is no reference of an artefact",
            "write it as oci://REGISTRY/REPOSITORY:TAG, or with @sha256:DIGEST",
        )
    base = f"{scheme}://{found['host']}{found['port'] or ''}"
    return ImageReference(base, found["repository"], found["tag"] or "", found["digest"] or "")


def decode_manifest(raw: bytes, where: str) -> Listing:
    """Return the bundles among an artefact's layers. Raises Refused when there is none, or it is no such manifest."""
    tried = f"read the manifest of {where}"
    try:
        kind = msgspec.json.decode(raw, type=_Kind)
        if kind.media_type in _INDEX_TYPES:
            raise Refused(tried, "it is an index of several artefacts", "name one of them by its digest")
        if kind.schema_version != 2 or kind.media_type != MANIFEST_TYPE:
            found = f"its media type {kind.media_type[:80]!a} is not {MANIFEST_TYPE}"
            raise Refused(tried, found, "push the bundle as an OCI artefact; see docs/how-to/pull.md")
        layers = msgspec.json.decode(raw, type=_Manifest).layers
        ours = [layer for layer in layers if msgspec.json.decode(layer, type=_Type).media_type == BUNDLE_TYPE]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused(tried, ascii(str(error))[1:-1][:200], "push the bundle again") from error
    if not ours or len(ours) > MAX_BUNDLES:
        found = f"{len(ours)} of its {len(layers)} layers are bundles (media type {BUNDLE_TYPE})"
        raise Refused(tried, found, f"push 1 to {MAX_BUNDLES} bundles with this media type; see docs/how-to/pull.md")
    offers, faults = {}, []
    for number, layer in enumerate(ours, 1):
        try:
            offer = _offer(msgspec.json.decode(layer, type=_Layer), tried)
            offers[offer.sha256] = offer
        except Refused as error:
            faults.append(Fault(f"bundle {number} of the artefact", error))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            refused = Refused(tried, f"bundle {number}: {ascii(str(error))[1:-1][:200]}", "push the bundle again")
            faults.append(Fault(f"bundle {number} of the artefact", refused))
    return Listing(list(offers.values()), faults)


def parse_challenge(header: str) -> Challenge | None:
    """Return the first challenge of a WWW-Authenticate header; None where it cannot be read."""
    head = re.match(r"\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)", header)
    if head is None:
        return None
    pairs = re.findall(r'([A-Za-z_]+)\s*=\s*(?:"([^"\\]*)"|([^\s",]+))', header[head.end() :])
    return Challenge(head[1].lower(), {name.lower(): quoted or plain for name, quoted, plain in pairs})


def decode_token(raw: bytes, where: str) -> str:
    """Return the token in a token server's answer. Raises Refused when it holds none that can be sent."""
    try:
        answer: Any = msgspec.json.decode(raw)
        token = answer.get("token") or answer.get("access_token")
    except (msgspec.MsgspecError, ValueError, RecursionError, AttributeError):
        token = None
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,16384}", token):
        raise Refused(f"ask {where} for a token", "its answer holds none", "check the registry and [pull] token_file")
    return token


def _offer(layer: _Layer, tried: str) -> Offer:
    """Return the offer that a layer is."""
    algorithm, _, digest = layer.digest.partition(":")
    try:
        sha256 = msgspec.convert(digest if algorithm == "sha256" else "", Digest)
    except msgspec.ValidationError as error:
        raise Refused(
            tried, f"a layer's digest {layer.digest[:80]!a} is no SHA-256", "push the bundle again"
        ) from error
    title = (layer.annotations or {}).get(_TITLE, "")
    return Offer(sha256, layer.size, ascii(title)[1:-1][:120] or f"sha256:{sha256}")
