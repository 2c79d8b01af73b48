"""Lists our families of converters for scikit-learn, beside those for trees, and registers them all with skl2onnx."""

from importlib import import_module

_NAMES = (
    "clusters",
    "decompositions",
    "discriminants",
    "dummies",
    "encoders",
    "envelopes",
    "functions",
    "gaussian_processes",
    "imputers",
    "isotonic",
    "kernels",
    "linear",
    "manifolds",
    "mixtures",
    "multiclass",
    "naive_bayes",
    "neighbours",
    "pipelines",
    "polynomials",
    "powers",
    "projections",
    "refusals",
    "semi_supervised",
    "splines",
    "stacking",
    "support_vectors",
    "text",
    "wrappers",
)
FAMILIES = tuple(import_module(f"convert.converters.{name}") for name in _NAMES)
"""The modules, each with its `register()`."""


def register() -> None:
    """Make skl2onnx use every converter of these families, in this process."""
    for family in FAMILIES:
        family.register()
