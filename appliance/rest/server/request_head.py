"""A request's head, read strictly by RFC 9112.

What two readers could take for different requests is refused: a proxy or filter between the client and us must have
read the same request. Pure: bytes in, a RequestHead out. Time grows with the bytes, and not faster.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

LONGEST_HEAD = 64 * 1024
"""Bytes of the request line and all fields."""
MOST_FIELDS = 128
"""Field lines in a head."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# No method that is registered has small letters, and WSGI could not tell them; a target has no "#".
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Z]+) ([!\"$-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rb"(%s):([\t\x20-\x7e\x80-\xff]*)" % _TOKEN)
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
# RFC 9110, section 7.2: uri-host [ ":" port ]; RFC 3986, section 3.2.2, for the host.
_HOST = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)(?:%25[A-Za-z0-9._~\-]+)?\]|(?:[A-Za-z0-9._~!$&'()*+,;=\-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
_LENGTH = re.compile(r"[0-9]{1,18}")
_STRAY = re.compile(rb"(?<!\r)\n|\r(?![\n]|\Z)|\x00")


class BadHead(Exception):
    """A head that is wrong; `status` is the answer's."""

    def __init__(self, found: str, status: int = 400) -> None:
        super().__init__(found)
        self.found = found
        self.status = status


@dataclass(slots=True)
class RequestHead:
    """What a head says."""

    method: str
    target: str
    """As it was sent."""
    path: str
    """Percent-decoded, as WSGI has it (latin-1)."""
    query: str
    version: str
    """ "1.0" or "1.1"."""
    headers: dict[str, str]
    """Name in capitals with _ for - (WSGI's) -> value; lines of one name are joined by ", "."""
    length: int
    """Bytes of the body; 0 for none, and for a chunked one."""
    chunked: bool
    closes: bool
    """Whether the connection ends with the answer."""
    expects_continue: bool
    """Whether the client waits for 100 Continue before it sends the body."""


def stray(begun: bytes | bytearray, start: int) -> bool:
    """Return whether the bytes from `start` on cannot be part of a head: a line end that is none, or a NUL."""
    return _STRAY.search(begun, max(0, start - 1)) is not None


def is_field(line: bytes) -> bool:
    """Return whether a line is NAME: VALUE."""
    return _FIELD.fullmatch(line) is not None


def read(head: bytes) -> RequestHead:
    """Return what a whole head says, its last empty line included. Raises BadHead."""
    first, *lines = head[:-4].split(b"\r\n")
    method, target, version = _request_line(first)
    headers = _fields(lines)
    path, query, authority = _target(method, target)
    length, chunked = _framing(headers, version)
    _check_host(headers, version)
    if authority is not None:
        headers["HOST"] = authority  # RFC 9112, section 3.2.2: it counts, and the field does not
    closes = _connection(headers, version)
    expects = version == "1.1" and headers.get("EXPECT", "").lower() == "100-continue" and (chunked or length > 0)
    return RequestHead(
        method, target.decode("latin-1"), path, query, version, headers, length, chunked, closes, expects
    )


def _request_line(line: bytes) -> tuple[str, bytes, str]:
    """Return method, target and version (RFC 9112, section 3)."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadHead("The request line is not METHOD TARGET HTTP/1.1")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise BadHead(f"HTTP/{major.decode()}.{minor.decode()} is not spoken here", 505)
    # RFC 9110, section 2.5: a higher minor version is answered as the highest that is known.
    return method.decode("ascii"), target, "1.0" if minor == b"0" else "1.1"


def _fields(lines: list[bytes]) -> dict[str, str]:
    """Return the fields (RFC 9112, section 5); a line that goes on in the next one is refused (section 5.2)."""
    if len(lines) > MOST_FIELDS:
        raise BadHead(f"The head has more than {MOST_FIELDS} fields", 431)
    headers: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise BadHead(f"A line of the head is not NAME: VALUE ({line[:60].decode('latin-1')!r})")
        name = found[1].decode("ascii").upper()
        if "_" in name:
            continue  # WSGI could not tell it from the name with "-"
        name = name.replace("-", "_")
        value = found[2].strip(b" \t").decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _target(method: str, target: bytes) -> tuple[str, str, str | None]:
    """Return path, query and, of the absolute form, the authority (RFC 9112, section 3.2)."""
    authority = None
    if target == b"*" and method == "OPTIONS":
        return "*", "", None
    if not target.startswith(b"/"):
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise BadHead("The request's target is neither a path nor an http address")
        authority, target = found[1].decode("latin-1"), found[2]
        if not authority or authority.startswith(":") or not _is_host(authority):
            raise BadHead("The request's target has no valid host")
    path, _, query = target.partition(b"?")
    return unquote_to_bytes(path or b"/").decode("latin-1"), query.decode("latin-1"), authority


def _check_host(headers: dict[str, str], version: str) -> None:
    """Refuse no Host, several and an invalid one (RFC 9112, section 3.2); several have been joined by a blank."""
    host = headers.get("HOST")
    if host is None:
        if version == "1.1":
            raise BadHead("HTTP/1.1 without the field Host")
    elif not _is_host(host):
        raise BadHead("The field Host is no host and port, or stands there twice")


def _is_host(text: str) -> bool:
    """Return whether a text is a host, or none, with or without a port."""
    found = _HOST.fullmatch(text)
    try:
        return found is not None and (found[1] is None or bool(ipaddress.IPv6Address(found[1])))
    except ValueError:
        return False


def _framing(headers: dict[str, str], version: str) -> tuple[int, bool]:
    """Return the body's length and whether it is chunked (RFC 9112, section 6)."""
    coding = headers.pop("TRANSFER_ENCODING", None)
    length = headers.get("CONTENT_LENGTH")
    if coding is not None:
        # Section 6.1: with both, or in HTTP/1.0, somebody between the client and us may have read another request.
        if length is not None or version == "1.0":
            raise BadHead("Transfer-Encoding with Content-Length, or in HTTP/1.0")
        codings = [part.strip(" \t").lower() for part in coding.split(",")]
        if codings != ["chunked"]:
            known = codings[-1] == "chunked" and "chunked" not in codings[:-1] and "" not in codings
            raise BadHead("Transfer-Encoding is not chunked alone", 501 if known else 400)
        return 0, True
    if length is None:
        return 0, False
    if not _LENGTH.fullmatch(length):
        raise BadHead("Content-Length is invalid")
    return int(length), False


def _connection(headers: dict[str, str], version: str) -> bool:
    """Return whether the connection ends with the answer (RFC 9112, section 9.3); leave of Connection what counts."""
    options = [option.strip(" \t") for option in headers.pop("CONNECTION", "").lower().split(",")]
    if "close" in options or version == "1.1":
        if "close" in options:
            headers["CONNECTION"] = "close"
        return "close" in options
    if "keep-alive" in options:
        headers["CONNECTION"] = "keep-alive"
        return False
    return True
