"""The figures of a self-test that passed: what a version answered here, and what it took."""

import msgspec


class SelfTest(msgspec.Struct, frozen=True):
    """The figures of a self-test that passed."""

    rows: int
    largest_difference: float
    """The largest |a - b| of any number, a being this processor's answer and b the original model's."""
    label_flips: int
    """Rows with another prediction, where the prediction is exact (a label, a whole number). 0: others do not pass."""
    load_seconds: float
    seconds: float
    processor: str
    onnxruntime: str = ""
    """The version of onnxruntime that ran it."""
    memory_bytes: int = 0
    """What load and self-test took at most beside the program itself; 0 where nobody measured."""
    digest: str = ""
    """SHA-256 of the manifest, which holds those of all that was tested."""
