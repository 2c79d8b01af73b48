"""Names the estimators that no ONNX graph here answers for, with why and what to use instead."""

from typing import Any

from sklearn import decomposition, feature_extraction, preprocessing
from sklearn.feature_extraction.image import PatchExtractor
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute._iterative import IterativeImputer  # public only after an experimental import

from convert.converters.writers import InputTensors, OutputTensors, refusal
from convert.converters.writers import register as register_writer

_SOLVER = "it solves for each batch of rows by an iteration whose end depends on the batch"
_SPARSE_CODE = "it searches a sparse code for each row"
_REFUSED: dict[type, tuple[str, str]] = {
    decomposition.NMF: (_SOLVER, "use PCA, SparsePCA or FactorAnalysis"),
    decomposition.MiniBatchNMF: (_SOLVER, "use PCA, SparsePCA or FactorAnalysis"),
    decomposition.LatentDirichletAllocation: (
        "it infers topics by an iteration for each row",
        "use TruncatedSVD on the same counts",
    ),
    decomposition.DictionaryLearning: (_SPARSE_CODE, "use SparsePCA"),
    decomposition.MiniBatchDictionaryLearning: (_SPARSE_CODE, "use MiniBatchSparsePCA"),
    decomposition.SparseCoder: (_SPARSE_CODE, "use SparsePCA"),
    feature_extraction.DictVectorizer: ("its rows are dictionaries", "use OneHotEncoder on a table with columns"),
    feature_extraction.FeatureHasher: ("its rows are dictionaries or lists", "use OneHotEncoder on a table"),
    IterativeImputer: (
        "it predicts gaps from the other columns, round after round",
        "use SimpleImputer or KNNImputer",
    ),
    HashingVectorizer: ("ONNX has no such hash of texts", "use CountVectorizer or TfidfVectorizer with max_features"),
    PatchExtractor: ("its rows are images", "cut the patches before the model"),
    preprocessing.MultiLabelBinarizer: ("its rows are sets of labels", "give the labels as columns of 0 and 1"),
}


def register() -> None:
    """Make skl2onnx refuse these estimators by name."""
    for estimator in _REFUSED:
        register_writer(estimator, "transformer", _refuse)


def reason(model: Any) -> tuple[str, str] | None:
    """Return why an estimator of this class is refused and what to use instead, or None."""
    return _REFUSED.get(type(model))


def _refuse(rows: InputTensors, model: Any) -> OutputTensors:
    raise refusal(model, *_REFUSED[type(model)])
