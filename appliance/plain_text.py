"""Texts of others as a terminal or a log may have them: what would move a cursor or turn a line is shown by its number.

Bundles, servers, keys, pickles and file names hold texts that nobody here wrote. They are kept as they are; they are
made plain where they leave to a person, by the one function that prints. Escaped are C0 and C1 controls and DEL
(ECMA-48, ISO/IEC 6429), line and paragraph separators, the marks, embeddings, overrides and isolates that change the
direction of what follows (UAX 9), other invisible marks that hide text, and halves of surrogate pairs.
"""

import re

_OTHERS = (
    "\x7f-\x9f"  # DEL and C1, NEL among them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # byte order mark, annotations, tags
    "\ud800-\udfff"
)
_UNSAFE = re.compile(f"[\x00-\x1f{_OTHERS}]")
_UNSAFE_IN_JSON = re.compile(f"[{_OTHERS}]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def plain(text: object) -> str:
    r"""Return one line of text in which every control is shown: ESC as `\x1b`, a right-to-left override as `\u202e`."""
    return _UNSAFE.sub(_shown, str(text))


def plain_json(document: str) -> str:
    r"""Return a JSON document that means the same, with the same characters as `\u009b`; its line ends stay."""
    return _UNSAFE_IN_JSON.sub(_shown_in_json, document)


def _shown(found: re.Match[str]) -> str:
    character = found[0]
    if character in _NAMED:
        return _NAMED[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _shown_in_json(found: re.Match[str]) -> str:
    """Return a character as RFC 8259, 7, has it: beyond U+FFFF as a pair of surrogates."""
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
