"""Lists our families of converters for scikit-learn, beside those for trees, and registers them all with skl2onnx."""

from convert.converters import (
    clusters,
    decompositions,
    discriminants,
    dummies,
    encoders,
    envelopes,
    functions,
    gaussian_processes,
    imputers,
    isotonic,
    kernels,
    linear,
    manifolds,
    mixtures,
    multiclass,
    naive_bayes,
    neighbours,
    pipelines,
    polynomials,
    powers,
    projections,
    refusals,
    semi_supervised,
    splines,
    stacking,
    support_vectors,
    text,
    wrappers,
)

FAMILIES = (
    clusters,
    decompositions,
    discriminants,
    dummies,
    encoders,
    envelopes,
    functions,
    gaussian_processes,
    imputers,
    isotonic,
    kernels,
    linear,
    manifolds,
    mixtures,
    multiclass,
    naive_bayes,
    neighbours,
    pipelines,
    polynomials,
    powers,
    projections,
    refusals,
    semi_supervised,
    splines,
    stacking,
    support_vectors,
    text,
    wrappers,
)
"""The modules, each with its `register()`."""


def register() -> None:
    """Make skl2onnx use every converter of these families, in this process."""
    for family in FAMILIES:
        family.register()
