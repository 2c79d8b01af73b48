"""Whether two versions of a model take the same rows and give the same kind of answers, by their manifests."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from appliance.bundle.manifest import Input, Manifest, Output

T = TypeVar("T", Input, Output)

_INPUT = ("type", "shape", "columns", "missing", "required", "missing_text", "finite")
_OUTPUT = ("type", "shape", "role")
_SAID = {
    ("missing", True): "takes missing values",
    ("missing", False): "takes no missing values any more",
    ("required", True): "may not be left out any more",
    ("required", False): "may be left out",
    ("finite", True): "takes finite numbers alone",
    ("finite", False): "takes infinite numbers",
}
"""What a version does whose field is so, where the other's is not."""


def differences(one: Manifest, other: Manifest) -> list[str]:
    """Return in what `other` differs from `one` for who asks it, a phrase each; [] where nothing does.

    Compared are task, columns (names, order, types, categories, what may lack), outputs and class labels.
    """
    found = [f"its task is {other.task} instead of {one.task}"] * (one.task != other.task)
    found += _of_tensors("input", one.inputs, other.inputs, _INPUT, _categories)
    found += _of_tensors("output", one.outputs, other.outputs, _OUTPUT, lambda before, after: iter(()))
    if one.class_labels != other.class_labels:
        found.append(f"its labels are {_listed(other.class_labels)} instead of {_listed(one.class_labels)}")
    return found


def _of_tensors(
    what: str, before: Sequence[T], after: Sequence[T], fields: Sequence[str], more: Callable[[T, T], Iterator[str]]
) -> Iterator[str]:
    """Yield in what the inputs or outputs differ."""
    names, new = [tensor.name for tensor in before], [tensor.name for tensor in after]
    if set(names) != set(new):
        gone, came = [name for name in names if name not in new], [name for name in new if name not in names]
        yield from (f"it has no {what} {name!r}" for name in gone)
        yield from (f"it has {what} {name!r} besides" for name in came)
    elif names != new:
        yield f"its {what}s have another order"
    for tensor in before:
        other = next((one for one in after if one.name == tensor.name), None)
        if other is None:
            continue
        for field in fields:
            was, now = getattr(tensor, field), getattr(other, field)
            if was != now and (words := _SAID.get((field, now))):
                yield f"{what} {tensor.name!r} {words}"
            elif was != now:
                yield f"{field} of {what} {tensor.name!r} is {_shown(now)} instead of {_shown(was)}"
        yield from more(tensor, other)


def _categories(before: Input, after: Input) -> Iterator[str]:
    """Yield how the categories of a column differ."""
    if before.categories == after.categories:
        return
    if before.categories is None or after.categories is None:
        yield f"input {before.name!r} takes {'any category' if after.categories is None else 'some categories alone'}"
        return
    for words, values in (
        ("takes no more", [one for one in before.categories if one not in after.categories]),
        ("takes besides", [one for one in after.categories if one not in before.categories]),
    ):
        if values:
            yield f"input {before.name!r} {words} {_listed(values)}"


def _listed(values: Sequence[Any]) -> str:
    """Return the first few of some values as text."""
    shown = ", ".join(map(_shown, values[:5]))
    return f"{shown} and {len(values) - 5} more" if len(values) > 5 else shown or "none"


def _shown(value: Any) -> str:
    """Return a value as text, a long one cut."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
