"""The places that bundles are taken from: a folder, a web server's index, an artefact in an OCI registry."""

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from appliance.bundle import archive
from appliance.config import PullConfig
from appliance.errors import ApplianceError, BundleRefused, ConfigError, NotFound, Refused
from appliance.pull import oci, offers
from appliance.pull.connection import endpoint
from appliance.pull.deadline import Deadline
from appliance.pull.offers import INDEX, MAX_DOCUMENT_BYTES, MAX_OFFERS, Fault, Listing, Offer
from appliance.pull.transfer import ServerResponse, Transfer, authorization, failure


@dataclass(frozen=True, slots=True)
class Document:
    """The index or manifest that says what a source offers; `etag` names its state on the server, if it has names."""

    content: bytes
    etag: str = ""


class BundleSource(Protocol):
    """A place that offers bundles."""

    def document(self, etag: str, deadline: Deadline) -> Document | None:
        """Return what the source states now; None where it is still the state that `etag` names."""

    def offers(self, document: Document) -> Listing:
        """Return the bundles that a document offers. Raises Refused when it cannot be understood."""

    def fetch(self, offer: Offer, partial: Path, deadline: Deadline) -> Path:
        """Return a file that holds what `offer` states: `partial`, completed, or one that needs no fetching."""


def open_source(config: PullConfig) -> BundleSource:
    """Return the source that `[pull] source` names. Raises ConfigError."""
    scheme, separator, rest = config.source.partition("://")
    if not separator or scheme == "file":
        return Folder(Path(unquote(rest) if separator else config.source), config.max_bytes)
    if scheme not in ("https", "http", "oci", "oci+http"):
        found = f"{scheme[:20]!a} is no kind of source"
        raise ConfigError(
            f"[pull] source {config.source[:200]}", found, "name a folder, an https:// or an oci:// address"
        )
    if scheme.endswith("http") and config.token_file:
        found = "the token would be readable on the way"
        raise ConfigError(
            f"[pull] source {config.source[:200]}", found, "use https:// or oci://, or take token_file away"
        )
    transfer, allowed = Transfer(config), authorization(config.token_file)
    if scheme.startswith("oci"):
        plain = scheme == "oci+http"
        return Registry(oci.parse_reference(rest, "http" if plain else "https"), transfer, allowed, config.auth_hosts)
    return Web(config.source, transfer, allowed)


class Folder:
    """A folder with bundles: a share, a stick. Its index.json decides; without one the newest version of each model."""

    def __init__(self, path: Path, most: int) -> None:
        """`path` is absolute, since a timer has no working folder of yours; `most` bytes has a bundle in it."""
        if not path.is_absolute():
            raise ConfigError(f"[pull] source {path}", "is no absolute path", "begin it with /")
        self._path, self._most = path, most
        self._has_index = False

    def document(self, etag: str, deadline: Deadline) -> Document | None:
        """Return the folder's index, an empty document where it has none. Raises NotFound, Refused."""
        if not self._path.is_dir():
            raise NotFound(f"read [pull] source {self._path}", "there is no such folder", "mount it, or check the path")
        index = self._path / INDEX
        self._has_index = os.path.lexists(index)
        if not self._has_index:
            return Document(b"")
        try:
            with _open_regular(index) as file:
                return Document(file.read(MAX_DOCUMENT_BYTES + 1))
        except OSError as error:
            raise NotFound(f"read {index}", error.strerror or str(error), "check the file and its rights") from error

    def offers(self, document: Document) -> Listing:
        """Return what the index offers; without one, every version of every model in the folder."""
        if self._has_index:
            return offers.decode_index(document.content, str(self._path / INDEX))
        return _bundles(self._path, self._most)

    def fetch(self, offer: Offer, partial: Path, deadline: Deadline) -> Path:
        """Return the bundle's own file, its digest compared: the store reads it from where it lies."""
        path = self._path / offer.file
        stated = describe(path, offer.size)
        if (stated.sha256, stated.size) != (offer.sha256, offer.size):
            found = f"it has {stated.size} bytes with SHA-256 {stated.sha256}, not {offer.size} with {offer.sha256}"
            raise BundleRefused(f"read {path}", found, "copy the bundle again, or write the index again")
        return path


class Web:
    """A web server's index.json, its bundles beside or below it."""

    def __init__(self, url: str, transfer: Transfer, allowed: str) -> None:
        """`url` names the index, or the folder above it; `allowed` is the Authorization header's value."""
        parts = urlsplit(url)
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            found = "is no plain address of an index"
            raise ConfigError(f"[pull] source {url[:200]}", found, f"write it as https://HOST/PATH/{INDEX}")
        self._url = url + INDEX if url.endswith("/") else url
        self._transfer, self._allowed = transfer, allowed

    def document(self, etag: str, deadline: Deadline) -> Document | None:
        """Return the index. Raises NotReady, NotFound, NotAllowed, Refused."""
        asked = {"If-None-Match": etag} if etag else {}
        answer = self._transfer.get(self._url, MAX_DOCUMENT_BYTES, asked, deadline, self._allowed)
        return _document(answer, self._url, etag)

    def offers(self, document: Document) -> Listing:
        """Return what the index offers."""
        return offers.decode_index(document.content, self._url)

    def fetch(self, offer: Offer, partial: Path, deadline: Deadline) -> Path:
        """Complete the download."""
        self._transfer.download(urljoin(self._url, quote(offer.file)), offer, partial, deadline, self._allowed)
        return partial


class Registry:
    """An artefact in an OCI registry, each of its layers with our media type a bundle."""

    def __init__(
        self, reference: oci.ImageReference, transfer: Transfer, allowed: str, auth_hosts: Sequence[str] = ()
    ) -> None:
        """`allowed` is the Authorization header's value; the registry may ask for a token in its stead.

        That is had from the registry's own host, or one of `auth_hosts`.
        """
        self._auth_hosts = auth_hosts
        self._reference, self._transfer, self._allowed = reference, transfer, allowed
        self._token = allowed if allowed.startswith("Bearer ") else ""

    def document(self, etag: str, deadline: Deadline) -> Document | None:
        """Return the artefact's manifest. Raises NotReady, NotFound, NotAllowed, Refused."""
        url = self._reference.manifest_url
        asked = {"Accept": oci.MANIFEST_TYPE} | ({"If-None-Match": etag} if etag else {})
        answer = self._transfer.get(url, MAX_DOCUMENT_BYTES, asked, deadline, self._token)
        if answer.status == 401 and self._answer(answer.headers.get("WWW-Authenticate", ""), deadline):
            answer = self._transfer.get(url, MAX_DOCUMENT_BYTES, asked, deadline, self._token)
        document = _document(answer, url, etag)
        if (
            document
            and self._reference.digest
            and hashlib.sha256(document.content).hexdigest() != self._reference.digest
        ):
            raise Refused(f"fetch {url}", "its SHA-256 is not the one that was asked for", "do not trust this registry")
        return document

    def offers(self, document: Document) -> Listing:
        """Return the bundles among the layers."""
        return oci.decode_manifest(document.content, self._reference.manifest_url)

    def fetch(self, offer: Offer, partial: Path, deadline: Deadline) -> Path:
        """Complete the download of a blob."""
        self._transfer.download(self._reference.blob_url(offer.sha256), offer, partial, deadline, self._token)
        return partial

    def _answer(self, header: str, deadline: Deadline) -> bool:
        """Get what a challenge asks for; return whether there is something to try again with."""
        challenge = oci.parse_challenge(header)
        if challenge is None:
            return False
        if challenge.scheme == "basic":
            self._token = self._allowed if self._allowed.startswith("Basic ") else ""
            return bool(self._token)
        url = challenge.token_url(self._reference.repository)
        if not url or self._token:
            return False
        if self._reference.base.startswith("https:") and not url.startswith("https:"):
            raise Refused(
                f"fetch {url}",
                "the registry asks for a token to be fetched without TLS",
                "configure TLS at the registry",
            )
        self._check_named(url)
        answer = self._transfer.get(url, MAX_DOCUMENT_BYTES, {}, deadline, self._allowed)
        if answer.status != 200:
            raise failure(url, answer.status)
        self._token = f"Bearer {oci.decode_token(answer.body, url)}"
        return True

    def _check_named(self, url: str) -> None:
        """Raise Refused where a token server would see our password that is neither the registry nor named."""
        if not self._allowed:
            return
        parts = urlsplit(url)
        try:
            place = endpoint(parts)
            named = [endpoint(urlsplit(self._reference.base))]
            named += [endpoint(urlsplit(f"{parts.scheme}://{host}")) for host in self._auth_hosts]
        except ValueError as error:
            raise Refused(f"fetch {url}", str(error), "check the registry and [pull] auth_hosts") from error
        if place not in named or parts.username is not None:
            host = parts.netloc[:200]
            found = f"the registry asks for the password to be sent to {host}, which nobody named"
            raise Refused(f"fetch {url}", found, f'if that is its token server: [pull] auth_hosts = ["{host}"]')


def index_of(folder: Path) -> bytes:
    """Return an index.json of the bundles in `folder`: of each model its newest version.

    Raises what is wrong with one of them: NotFound, BundleRefused.
    """
    listing = _bundles(folder, sys.maxsize, check=True)
    for fault in listing.faults:
        raise fault.error
    return offers.encode_index(offers.newest(listing.offers))


def describe(path: Path, most: int) -> Offer:
    """Return the offer that a bundle's file is, its model not named.

    Raises NotFound, BundleRefused for one of more than `most` bytes, before it is read.
    """
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise BundleRefused(
                    f"read {path}", f"it has {size} bytes, more than {most}", "check it, or [pull] max_bytes"
                )
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Offer(digest, file.tell(), path.name)
    except OSError as error:
        raise NotFound(f"read {path}", error.strerror or str(error), "check the path and its rights") from error


def _open_regular(path: Path) -> BufferedReader:
    """Return a file to read, links followed: what it holds is judged by its signature. Raises OSError for a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def _bundles(folder: Path, most: int, *, check: bool = False) -> Listing:
    """Return every bundle of at most `most` bytes in a folder; `check` proves their members too.

    Raises Refused when there are too many.
    """
    paths = sorted(folder.glob("*.bundle"))
    if len(paths) > MAX_OFFERS:
        raise Refused(f"list {folder}", f"{len(paths)} bundles, more than {MAX_OFFERS}", "take old ones away")
    found, faults = [], []
    for path in paths:
        name = version = ""
        try:
            with archive.opened(path, most_bytes=sys.maxsize) as bundle:
                if check:
                    bundle.check()
                name, version = bundle.manifest.name, bundle.manifest.version
            plain = describe(path, most)  # what is no bundle is not read whole for that
            found.append(Offer(plain.sha256, plain.size, path.name, name, version))
        except ApplianceError as error:
            faults.append(Fault(path.name, error, name, version))
    return Listing(found, faults)


def _document(answer: ServerResponse, url: str, etag: str) -> Document | None:
    """Return the document in an answer, None where it is the one that `etag` names."""
    if answer.status == 304 and etag:
        return None
    if answer.status != 200:
        raise failure(url, answer.status)
    return Document(answer.body, answer.headers.get("ETag", ""))
