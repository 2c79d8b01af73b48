import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import (
    CountVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
    strip_accents_ascii,
    strip_accents_unicode,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from appliance.errors import ConversionRefused
from benchmarks.coverage_data import NEW_TEXTS, TEXTS

OPTIONS = [
    {},
    {"ngram_range": (1, 2)},
    {"ngram_range": (2, 3)},
    *[{"analyzer": a, "ngram_range": r} for a in ("char", "char_wb") for r in ((1, 1), (2, 4), (4, 4))],
    {"stop_words": "english"},
    {"stop_words": ["the", "fox"], "ngram_range": (1, 3)},
    {"lowercase": False},
    {"binary": True},
    *[{"token_pattern": p} for p in (r"\S+", r"(?u)\b\w+\b", r"[a-zA-Z]+", r"\w{3,}", r"\d+")],
    {"min_df": 2},
    {"vocabulary": ["fox", "dog", "über"]},
]


def _same(model, graph, ask):
    session = graph(model, NEW_TEXTS)
    expected = model.transform(NEW_TEXTS).toarray()
    np.testing.assert_allclose(ask(session, NEW_TEXTS)[0], expected, rtol=1e-9)
    for text, row in zip(NEW_TEXTS, expected, strict=True):
        np.testing.assert_allclose(ask(session, [text])[0], row[None], rtol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_words_and_characters_are_counted_as_in_scikit_learn(graph, ask, options):
    _same(CountVectorizer(**options).fit(TEXTS), graph, ask)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [{}, {"sublinear_tf": True}, {"norm": "l1"}, {"norm": None}, {"use_idf": False, "binary": True}],
    ids=str,
)
def test_counts_are_weighed_as_in_scikit_learn(graph, ask, options):
    _same(TfidfVectorizer(**options).fit(TEXTS), graph, ask)


def test_texts_are_classified_through_both_kinds_of_pipeline(graph, ask):
    labels = np.array(["even", "odd"])[np.arange(len(TEXTS)) % 2]
    for steps in ([TfidfVectorizer()], [CountVectorizer(), TfidfTransformer(sublinear_tf=True)]):
        model = make_pipeline(*steps, LogisticRegression()).fit(TEXTS, labels)
        found, probabilities = ask(graph(model, NEW_TEXTS), NEW_TEXTS)
        assert (found == model.predict(NEW_TEXTS)).all()
        np.testing.assert_allclose(probabilities, model.predict_proba(NEW_TEXTS), atol=1e-6)


# Dotted capital I, and capital sigma in every place: after and before letters, marks, signs that are passed over.
SPECIAL = [
    "İstanbul",
    "İİΣ İ",
    "ΑΣ",
    "ΑΣ.",
    "ΟΔΟΣ fox",
    "x\nΣΑΣ\n",
    "fox’Σ",
    "ΣΣ ΑΣΣ ΑΣΣΑ",
    "Σ",
    "",
    "Α.Σ.Α Α'Σ",
    "ʰΣ aʰΣʰ aΣʰb",
]
ACCENTS = [
    "Crème brûlée",
    "ÀÉÎõü ñ",
    "ﬁne ½ Å ẛ̣",
    "e\u0301tude",
    "한국어 ㎏",
    "ß ø Ł",
    "naïve façade 東京",
    "",
    "\u0301",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"analyzer": "char"}, {"strip_accents": "unicode"}], ids=str)
def test_lower_case_is_pythons(graph, ask, options):
    model = CountVectorizer(token_pattern=r"\S+", **options).fit([*TEXTS, *SPECIAL])
    for texts in (SPECIAL, [*TEXTS, "ΑΣ", "İ"], *([text] for text in SPECIAL)):
        np.testing.assert_allclose(ask(graph(model, texts), texts)[0], model.transform(texts).toarray())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["unicode", "ascii", strip_accents_unicode, strip_accents_ascii], ids=range(4))
@pytest.mark.parametrize("options", [{}, {"analyzer": "char", "lowercase": False}], ids=str)
def test_accents_are_stripped_as_in_scikit_learn(graph, ask, how, options):
    model = CountVectorizer(strip_accents=how, **options).fit([*TEXTS, *ACCENTS, *SPECIAL])
    texts = [*NEW_TEXTS, *ACCENTS, *SPECIAL]
    np.testing.assert_allclose(ask(graph(model, texts), texts)[0], model.transform(texts).toarray())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"analyzer": "char"}], ids=str)
def test_sigma_elsewhere_than_at_the_end_of_a_word_is_put_into_lower_case(graph, ask, options):
    texts = [*TEXTS, "ΣΩΜΑ Σ σωμα", "fox ΑΣΑ ας"]
    model = CountVectorizer(**options).fit(texts)
    np.testing.assert_allclose(ask(graph(model, NEW_TEXTS), texts)[0], model.transform(texts).toarray())


# Left out: code points that are letters only in a newer Unicode than onnxruntime's, and what no text holds.
_LETTERS = st.characters(codec="utf-8", exclude_characters="\x00\x01", max_codepoint=0xFFFF, exclude_categories=("Cn",))
_LETTERS |= st.sampled_from("ΣΣİaʰΑ .'\u0301é한")


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(_LETTERS, max_size=30), min_size=1, max_size=4))
def test_any_text_is_taken_apart_as_in_scikit_learn(vectorizers, texts):
    for model, ask in vectorizers:
        np.testing.assert_allclose(ask(texts), model.transform(texts).toarray())


@pytest.fixture(scope="module")
def vectorizers(graph, ask):
    models = [
        CountVectorizer(),
        CountVectorizer(analyzer="char", ngram_range=(1, 2)),
        CountVectorizer(analyzer="char_wb"),
        CountVectorizer(analyzer="char", strip_accents="unicode"),
    ]
    sessions = [graph(model.fit([*TEXTS, "ΣİaʰΑ .'\u0301éς한"]), NEW_TEXTS) for model in models]
    return [
        (model, lambda texts, session=session: ask(session, texts)[0])
        for model, session in zip(models, sessions, strict=True)
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"token_pattern": r"(?u)\b\w+[-']?\w*"},
        {"token_pattern": r"(\w+)-"},
        {"tokenizer": str.split},
        {"preprocessor": str.upper},
        {"analyzer": str.split},
        {"strip_accents": str.strip},
    ],
    ids=str,
)
def test_patterns_and_functions_without_a_graph_are_refused(graph, options):
    with pytest.raises(ConversionRefused, match="CountVectorizer"):
        graph(CountVectorizer(**options).fit([*TEXTS, "state-of"]), NEW_TEXTS)
