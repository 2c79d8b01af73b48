"""Writes what Python does to the letters of a text: lower case, and accents taken off.

Letters become lower case one by one, by the C library's rules under C.UTF-8. Two are left to us: the dotted capital I
of Turkish, which becomes two code points, and the Greek capital sigma, whose lower case depends on its neighbours
(Unicode 16, 3.13, Final_Sigma). Texts with them, and accents, are cut into pieces, changed, and joined again.
"""

import functools
import itertools
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from convert.converters.expressions import Graph, Tensor, concat, where

_DOTTED, _SIGMA, _FINAL = "\u0130", "\u03a3", "\u03c2"
_ASCII = "\\x00-\\x7f"
_JAMO = ("\u1100", "\u11ff")  # the letters that a Korean syllable is made of
_TEXTS, _TABLE = ("string", 1), ("string", 2)


def lower(text: Tensor) -> Tensor:
    """Return texts [n] as `str.lower` gives them."""
    special = _matches(text, f"(?s).*[{_DOTTED}{_SIGMA}].*")
    text = _where_any(special, text, lambda rows: _with_final_sigma(_replaced(rows, {_DOTTED: _DOTTED.lower()})))
    return text.op("StringNormalizer", case_change_action="LOWER", is_case_sensitive=1, locale="C.UTF-8")


def without_accents(text: Tensor, how: str, terms: Iterable[str]) -> Tensor:
    """Return texts [n] as sklearn.feature_extraction.text.strip_accents_unicode or strip_accents_ascii gives them.

    `how` is "unicode" or "ascii". The parts of Korean syllables are put in where one of the vocabulary's `terms` has
    such parts: elsewhere a syllable and its parts are alike in no term.
    """
    if how == "ascii":
        table = {letter: ascii_ for letter, ascii_ in _stripped_to_ascii().items() if ascii_}
        special = _matches(text, f"(?s).*[^{_ASCII}].*")
        return _where_any(special, text, lambda rows: _replaced(rows, table, f"^{_ASCII}"))
    parts = any(_JAMO[0] <= letter <= _JAMO[1] for term in terms for letter in term)
    table = {one: bare for one, bare in _stripped().items() if parts or not "\uac00" <= one <= "\ud7a3"}
    special = _matches(text, f"(?s).*[{_ranges(table)}].*")
    return _where_any(special, text, lambda rows: _replaced(rows, table))


def _where_any(found: Tensor, text: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the texts [n] changed if something was `found` in any, else as they are: most batches cost nothing."""
    graph = text.graph
    turns = found.cast("int64").op("ReduceMax", keepdims=0)
    whether = graph.node("Min", turns, np.array(1))

    def once(rows: Tensor, fixed: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        return rows.graph.constant(np.array(True)).op("Identity"), change(rows)

    return graph.loop(once, whether, text, found, (_TEXTS, ("bool", 1)))


def _replaced(text: Tensor, table: dict[str, str], signs: str = "") -> Tensor:
    """Return texts [n] with the letters of `table` replaced, and any other of the class `signs` left out."""
    signs = signs or _ranges(table)
    others = signs[1:] if signs.startswith("^") else f"^{signs}"
    pieces = _pieces(text, f"[{signs}]", f"[{others}]+")
    keys = sorted(table)
    attributes = {"keys_strings": keys, "values_strings": [table[key] for key in keys], "default_string": ""}
    new = text.graph.node("LabelEncoder", pieces, domain="ai.onnx.ml", **attributes)
    return _joined(where(_matches(pieces, f"(?s)[{signs}]"), new, pieces))


def _with_final_sigma(text: Tensor) -> Tensor:
    """Return texts [n] with a final sigma for each capital one that ends a word."""
    pieces = _pieces(text, _SIGMA, f"[^{_SIGMA}]+")
    cased, passed_over = _sigma_rules()
    nothing = _column_of(text, "")
    around = concat([nothing, nothing, pieces, nothing, nothing])
    first, second = (around.op("Slice", [2 - step], [-2 - step], [1]) for step in (1, 2))
    after = [around.op("Slice", [2 + step], [end], [1]) for step, end in ((1, -1), (2, np.iinfo(np.int64).max))]
    before_it = _is(first, _SIGMA) | _matches(first, f"(?s).*[{cased}][{passed_over}]*")
    before_it = before_it | (_matches(first, f"[{passed_over}]+") & _is(second, _SIGMA))
    after_it = _is(after[0], _SIGMA) | _matches(after[0], f"(?s)[{passed_over}]*[{cased}].*")
    after_it = after_it | (_matches(after[0], f"[{passed_over}]+") & _is(after[1], _SIGMA))
    final = _is(pieces, _SIGMA) & before_it & after_it.op("Not")
    return _joined(where(final, np.array([[_FINAL]], dtype=object), pieces))


def _pieces(text: Tensor, *patterns: str) -> Tensor:
    """Return each text [n] cut into the matches of patterns that leave nothing out [n, most + 1], filled up with ""."""
    attributes = {"mark": 0, "mincharnum": 1, "pad_value": "", "tokenexp": "|".join(f"(?s:{one})" for one in patterns)}
    return concat([text.graph.node("Tokenizer", text, domain="com.microsoft", **attributes), _column_of(text, "")])


def _column_of(text: Tensor, value: str) -> Tensor:
    shape = text.op("Shape", start=0, end=1).op("Concat", [1], axis=0)
    return text.graph.node("Expand", np.array([[value]], dtype=object), shape)


def _joined(pieces: Tensor) -> Tensor:
    """Return pieces of texts [n, k] as texts [n]."""
    graph: Graph = pieces.graph
    count = pieces.op("Shape", start=1, end=2).reshape()
    empty = graph.node("Expand", np.array([""], dtype=object), pieces.op("Shape", start=0, end=1))

    def add(text: Tensor, every: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        go_on = text.graph.constant(np.array(True)).op("Identity")
        return go_on, text.op("StringConcat", every.op("Gather", turn, axis=1))

    return graph.loop(add, count, empty, pieces, (_TEXTS, _TABLE))


def _is(pieces: Tensor, letter: str) -> Tensor:
    return pieces.equals(np.array([[letter]], dtype=object))


def _matches(texts: Tensor, pattern: str) -> Tensor:
    return texts.op("RegexFullMatch", pattern=pattern)


@functools.cache
def _sigma_rules() -> tuple[str, str]:
    """Return which letters make a sigma after them a final one, and which are passed over, as Python has them."""
    cased, passed_over = [], []
    for letter in _letters():
        if (letter + _SIGMA).lower()[-1] == _FINAL:
            cased.append(letter)
        elif ("a" + letter + _SIGMA).lower()[-1] == _FINAL:
            passed_over.append(letter)
    return _ranges(cased), _ranges(passed_over)


@functools.cache
def _stripped() -> dict[str, str]:
    """Return {letter: itself without accents}, of those that have some."""
    found = {}
    for letter in _letters():
        plain = unicodedata.normalize("NFKD", letter)
        bare = "".join(one for one in plain if not unicodedata.combining(one))
        if bare != letter:
            found[letter] = bare
    return found


@functools.cache
def _stripped_to_ascii() -> dict[str, str]:
    """Return {letter beyond ASCII: the ASCII letters in it}."""
    return {
        letter: unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        for letter in _letters()
        if letter > "\x7f"
    }


def _letters() -> Iterable[str]:
    """Yield every code point that may have a case or accents, or be passed over.

    Those are the planes 0 to 3 and 14, surrogates left out, which no text holds; the others are unassigned or for
    private use (Unicode 16, 2.8).
    """
    return (chr(code) for code in itertools.chain(range(1, 0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000)))


def _ranges(letters: Iterable[str]) -> str:
    """Return letters as the inside of a character class of RE2."""
    parts: list[list[int]] = []
    for code in sorted(map(ord, letters)):
        if parts and parts[-1][1] == code - 1:
            parts[-1][1] = code
        else:
            parts.append([code, code])
    return "".join(f"\\x{{{a:x}}}" if a == b else f"\\x{{{a:x}}}-\\x{{{b:x}}}" for a, b in parts)
