"""manifest.json: what a bundle holds, what its model takes and gives, and where it came from."""

import re
from typing import Annotated, Literal

import msgspec

from appliance.errors import Misuse

FORMAT = 1
"""The one format number this appliance writes."""
READABLE_FORMATS = (1,)
"""The format numbers it reads."""

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
# The official expression of https://semver.org (2.0.0), named groups left out.
VERSION_PATTERN = (
    r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)

TensorType = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "string",
]  # fmt: skip
Task = Literal["classification", "regression", "clustering", "outlier", "transformation"]
Label = bool | int | float | str
Category = bool | int | float | str
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the manifest: immutable, and unknown keys are an error."""


class Input(_Record, frozen=True):
    """One named tensor that the model takes.

    `shape` has -1 for the number of rows first. `columns` are the table's column names that fill the tensor, in
    order: one for a `[-1, 1]` tensor made from a DataFrame column, many for the `features` tensor of a plain array.
    """

    name: str
    type: TensorType
    shape: list[int]
    columns: list[str]
    missing: bool = False
    """Whether null (NaN, for a string the value in `missing_text`) is a value that the model takes."""
    required: bool = True
    """Whether a row must name this column; if not, a column that a row leaves out is missing."""
    categories: list[Category] | None = None
    """The only values that the model takes, where it refuses others; None where it takes any."""
    missing_text: str = ""
    """The text that stands for a missing value in a string tensor."""
    finite: bool = True
    """Whether infinity is refused, as scikit-learn refuses it."""


class Output(_Record, frozen=True):
    """One named tensor that the model gives; `role` says which part of a prediction it is."""

    name: str
    type: TensorType
    shape: list[int]
    role: Literal["prediction", "probability", "score", "other"] = "other"


class Tolerance(_Record, frozen=True):
    """How far a number may be from the original's: |a - b| <= absolute + relative * |b|."""

    absolute: float = 1e-5
    relative: float = 1e-5


class Policy(_Record, frozen=True):
    """What the device holds the model to."""

    tolerance: Tolerance = Tolerance()


class Provenance(_Record, frozen=True):
    """Where the model came from: frozen here so that the device never needs the registry."""

    source: str
    """The URL or file name that was converted, without the build machine's folders."""
    sha256: Digest
    model_type: str
    """The estimator's qualified class name."""
    libraries: dict[str, str] = {}
    """Distribution name -> version at conversion."""
    run: str = ""
    """The run, commit or package of the registry that the model came from."""
    trained_with: dict[str, str] = {}
    """Library -> version at training, as far as the registry tells."""


class Member(_Record, frozen=True):
    """Size in bytes and SHA-256 of another member of the bundle."""

    size: Count
    sha256: Digest


class Manifest(_Record, frozen=True):
    """The whole of manifest.json."""

    format: int
    name: str
    version: str
    task: Task
    inputs: list[Input]
    outputs: list[Output]
    opset: dict[str, int]
    """Operator set domain ("" is ai.onnx) -> version."""
    ir_version: int
    least_onnxruntime: str
    provenance: Provenance
    members: dict[str, Member]
    class_labels: list[Label] = []
    policy: Policy = Policy()

    @property
    def columns(self) -> list[str]:
        """Every column name, in the order in which a row given as a list has them."""
        return [column for tensor in self.inputs for column in tensor.columns]


def check_name(name: str) -> str:
    """Return `name`, or raise Misuse when it is no model name."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise Misuse(f"model name {name!r}", f"does not match {NAME_PATTERN}", "choose another --name")
    return name


def check_version(version: str) -> str:
    """Return `version`, or raise Misuse when it is not SemVer 2.0.0."""
    if not re.fullmatch(VERSION_PATTERN, version) or len(version) > 128:
        raise Misuse(f"version {version!r}", "is not SemVer (as 1.4.2)", "choose another --version")
    return version


def version_order(version: str) -> tuple[object, ...]:
    """Return a sort key that puts SemVer versions in their order of precedence (semver.org, clause 11)."""
    core, _, pre = version.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    identifiers = (
        tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")) if pre else ()
    )
    return (*numbers, not pre, identifiers)
