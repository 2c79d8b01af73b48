"""Writes bags of words and of characters (sklearn.feature_extraction.text): tokens by RE2, n-grams by TfIdfVectorizer.

RE2's \\w, \\b and \\s cover ASCII only, so they are written out.
"""

import re
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import (
    CountVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
    strip_accents_ascii,
    strip_accents_unicode,
)

from convert.converters import letters
from convert.converters.expressions import Graph, Tensor, concat, where
from convert.converters.writers import InputTensors, OutputTensors, refusal
from convert.converters.writers import register as register_writer

_WORD = r"\p{L}\p{N}_"
_SPACE = r"\x09-\x0d\x1c-\x20\x{85}\p{Z}"
_ANY = r"(?s)."
# In Python a run of \w between \b is as long as it can be; a greedy run without \b is the same.
_WORD_RUN = re.compile(r"(?:\(\?u\))?(?:\\b)?((?:\\w)+(?:\+|\{\d+,\}))(?:\\b)?")
_STRIPPING = {strip_accents_unicode: "unicode", strip_accents_ascii: "ascii"}
_REWRITE = r"use the default token_pattern, r'(?u)\b\w+\b' or a plain character class, and no functions"


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(CountVectorizer, "transformer", lambda rows, model: OutputTensors(transform=_counts(rows, model)))
    register_writer(TfidfVectorizer, "transformer", _tfidf_vectorizer)
    register_writer(
        TfidfTransformer, "transformer", lambda rows, model: OutputTensors(transform=_tfidf(rows.matrix, model))
    )


def _tfidf_vectorizer(rows: InputTensors, model: Any) -> OutputTensors:
    return OutputTensors(transform=_tfidf(_counts(rows, model), model._tfidf))


def _tfidf(counts: Tensor, model: Any) -> Tensor:
    """As sklearn.feature_extraction.text.TfidfTransformer.transform; empty rows stay 0."""
    if model.sublinear_tf:
        absent = counts.equals(0.0)
        counts = where(absent, 0.0, where(absent, 1.0, counts).log() + 1.0)
    if model.use_idf:
        counts = counts * np.asarray(model.idf_, dtype=np.float64)[None, :]
    if model.norm is None:
        return counts
    return counts.op("LpNormalization", axis=1, p=2 if model.norm == "l2" else 1)  # zeros stay zeros


def _counts(rows: InputTensors, model: Any) -> Tensor:
    """As sklearn.feature_extraction.text.CountVectorizer.transform, float64 [n, terms]."""
    if callable(model.analyzer) or model.preprocessor is not None or model.tokenizer is not None:
        raise refusal(model, "it calls a function of its own on texts", _REWRITE)
    how = _STRIPPING.get(model.strip_accents, model.strip_accents)
    if how not in (None, "unicode", "ascii"):
        raise refusal(model, "its strip_accents is a function", "use strip_accents='unicode' or 'ascii'")
    terms = sorted(model.vocabulary_, key=model.vocabulary_.__getitem__)
    text = rows.joined().reshape(-1)
    if model.lowercase:
        text = letters.lower(text)
    if how is not None:
        text = letters.without_accents(text, how, terms)
    pad = _unused(terms)
    if model.analyzer == "word":
        tokens, grams = _words(text, model, pad), [_split(term, model) for term in terms]
    else:
        tokens = _characters(text, pad) if model.analyzer == "char" else _padded_words(text, pad)
        grams = [tuple(term) for term in terms]
    counts = _grams(tokens, grams).cast("float64")
    return counts.clip(None, 1.0) if model.binary else counts


def _unused(terms: list[str]) -> str:
    """Return a text that is part of no term, to pad short rows of tokens."""
    pad = "\x01"
    while any(pad in term for term in terms):
        pad += "\x01"
    return pad


def _tokenized(text: Tensor, pattern: str, pad: str) -> Tensor:
    """Return the matches of a pattern in each text [n] as texts [n, most matches + 1], filled up with `pad`.

    The additional column makes sure that a batch without any match has a column.
    """
    attributes = {"mark": 0, "mincharnum": 1, "pad_value": pad, "tokenexp": pattern}
    tokens = text.graph.node("Tokenizer", text, domain="com.microsoft", **attributes)
    rows = text.op("Shape", start=0, end=1)
    filler = text.graph.node("Expand", np.array([[pad]], dtype=object), rows.op("Concat", [1], axis=0))
    return concat([tokens, filler])


def _words(text: Tensor, model: Any, pad: str) -> Tensor:
    tokens = _tokenized(text, _pattern(model), pad)
    stop_words = model.get_stop_words()
    if not stop_words or tuple(model.ngram_range) == (1, 1):  # terms never hold stop words
        return tokens
    return _without(tokens, sorted(stop_words), pad)


def _without(tokens: Tensor, stop_words: list[str], pad: str) -> Tensor:
    """Return tokens with the stop words taken out and the others moved together, as n-grams reach over them."""
    graph: Graph = tokens.graph
    table = {"keys_strings": stop_words, "values_floats": [1.0] * len(stop_words), "default_float": 0.0}
    stop = graph.node("LabelEncoder", tokens, domain="ai.onnx.ml", **table).cast("float64")
    width = tokens.op("Shape", start=1, end=2)
    places = graph.node("Range", np.array(0), width.reshape(), np.array(1)).cast("float64")
    moved = stop * width.cast("float64") + places.expand(0)
    order, index = graph.nodes("TopK", moved, width, outputs=2, axis=1, largest=0, sorted=1)
    together = tokens.op("GatherElements", index, axis=1)
    return where(order >= width.cast("float64"), np.array([[pad]], dtype=object), together)


def _characters(text: Tensor, pad: str) -> Tensor:
    """Return each text's characters; two or more white ones together are one space."""
    run = f"[{_SPACE}][{_SPACE}]+"
    tokens = _tokenized(text, f"{run}|{_ANY}", pad)
    return where(tokens.op("RegexFullMatch", pattern=run), np.array([[" "]], dtype=object), tokens)


def _padded_words(text: Tensor, pad: str) -> Tensor:
    """Return each text's words as characters, a space before and after each word.

    An n-gram that reached from one word into the next would hold two spaces together, which no term does.
    """
    words = _tokenized(text, f"[^{_SPACE}]+", pad)
    flat = words.reshape(-1)
    space = np.array([" "], dtype=object)
    spaced = text.graph.node("StringConcat", text.graph.node("StringConcat", space, flat), space)
    characters = _tokenized(spaced, _ANY, pad)
    no_word = flat.equals(np.array([pad], dtype=object)).expand(1)
    characters = where(no_word, np.array([[pad]], dtype=object), characters)
    return characters.op("Reshape", text.op("Shape").op("Concat", [-1], axis=0))


def _grams(tokens: Tensor, grams: list[tuple[str, ...]]) -> Tensor:
    """Return how often each n-gram is in each row of tokens, float32 [n, grams]."""
    order = sorted(range(len(grams)), key=lambda i: (len(grams[i]), grams[i]))
    longest = len(grams[order[-1]])
    starts: list[int] = []
    pool: list[str] = []
    for length in range(1, longest + 1):
        starts.append(len(pool))
        for i in order:
            if len(grams[i]) == length:
                pool += list(grams[i])
    return tokens.op(
        "TfIdfVectorizer",
        mode="TF",
        min_gram_length=len(grams[order[0]]),
        max_gram_length=longest,
        max_skip_count=0,
        ngram_counts=starts,
        ngram_indexes=order,
        pool_strings=pool,
    )


def _pattern(model: Any) -> str:
    """Return the token pattern as RE2 needs it."""
    run = _WORD_RUN.fullmatch(model.token_pattern)
    pattern = run.group(1) if run else model.token_pattern.removeprefix("(?u)")
    if re.search(r"\\[bBAZ]|\(|\\\d|[$^](?![^[]*\])", pattern):
        raise refusal(model, f"token_pattern {model.token_pattern!r}", _REWRITE)
    classes = {r"\w": _WORD, r"\s": _SPACE, r"\d": r"\p{Nd}"}
    inside = re.sub(r"\[[^]]*\]", lambda found: _spelt(found.group(), classes), pattern)
    outside = re.split(r"(\[[^]]*\])", inside)
    return "".join(part if part.startswith("[") else _spelt_alone(part, classes) for part in outside)


def _spelt(text: str, classes: dict[str, str]) -> str:
    for short, long in classes.items():
        text = text.replace(short, long)
    return text


def _spelt_alone(text: str, classes: dict[str, str]) -> str:
    for short, long in classes.items():
        text = text.replace(short, f"[{long}]").replace(short.upper(), f"[^{long}]")
    return text


def _split(term: str, model: Any) -> tuple[str, ...]:
    """Return the tokens of a term; scikit-learn joins them with spaces."""
    if model.ngram_range[1] == 1:
        return (term,)
    if any(" " in token for token in re.findall(model.token_pattern, "a b  c")):
        raise refusal(model, "its tokens hold spaces, so different n-grams look the same", _REWRITE)
    return tuple(term.split(" "))
