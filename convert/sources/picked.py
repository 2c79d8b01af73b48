"""Finds the estimator in what a pickle holds: people keep models in a dict, beside their columns and thresholds."""

from collections.abc import Iterator, Mapping
from typing import Any

from appliance.errors import ConversionRefused

_MOST_NAMED = 10
_OTHER_LIBRARIES = ("keras", "tensorflow", "torch", "statsmodels", "prophet", "transformers")
_ANSWERS = ("predict", "transform", "score_samples", "fit")


def pick(held: Any, item: str, file: str) -> Any:
    """Return the estimator of a pickle that holds `held`: the object itself, or its part that `item` names.

    `item` is a key of a dict, a position in a list or an attribute; of parts in parts, joined by dots. Raises
    ConversionRefused with what the file holds where `item` is not there or what it names is no estimator.
    """
    whole, tried = held, f"take the model from {file}"
    for name in [item] if item in dict(_parts(held)) else filter(None, item.split(".")):
        inside = dict(_parts(held))
        if name not in inside:
            raise ConversionRefused(tried, f"there is no {item!r}; it holds {_described(whole)}", _choice(whole))
        held = inside[name]
    if is_estimator(held):
        return held
    where = f"{item!r} holds" if item else "it holds"
    raise ConversionRefused(tried, f"{where} {_described(held)}, which is no trained estimator", _next_step(held, item))


def is_estimator(value: Any) -> bool:
    """Return whether an object can answer for rows, or be trained: an estimator of any library, or a Booster."""
    return not isinstance(value, type) and any(callable(getattr(value, name, None)) for name in _ANSWERS)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of an object by their names."""
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(index), part) for index, part in enumerate(value))
        fields = getattr(value, "_fields", ())  # of a named tuple
        yield from zip(fields, value, strict=False)
    elif not isinstance(value, type):
        yield from getattr(value, "__dict__", {}).items()


def _described(value: Any) -> str:
    """Return what an object is, in words, and the names of its parts."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    kind = type(value).__name__
    if shape := getattr(value, "shape", None):
        return f"a {kind} of shape {tuple(shape)}"
    if isinstance(value, str | bytes):
        return f"a text ({value[:40]!r})"
    names = [f"{name!r} ({type(part).__name__})" for name, part in _parts(value)]
    if len(names) > _MOST_NAMED:
        names = [*names[:_MOST_NAMED], f"{len(names) - _MOST_NAMED} more"]
    word = "attributes" if hasattr(value, "__dict__") and not isinstance(value, Mapping | list | tuple) else "keys"
    word = "items" if isinstance(value, list | tuple) else word
    return f"a {kind} with the {word} {', '.join(names)}" if names else f"a {kind}"


def _next_step(held: Any, item: str) -> str:
    if isinstance(held, type):
        return f"write the trained object, as joblib.dump(model, ...) after model.fit, not the class {held.__name__}"
    library = type(held).__module__.partition(".")[0]
    if library in _OTHER_LIBRARIES:
        return f"write the {library} model as ONNX with its own exporter, and give the .onnx file with --expected"
    return _choice(held, f"{item}." if item else "")


def _choice(held: Any, before: str = "") -> str:
    """Return how to name a part of `held` that is an estimator."""
    found = [name for name, part in _parts(held) if is_estimator(part)]
    inner = [f"{name}.{below}" for name, part in _parts(held) for below, one in _parts(part) if is_estimator(one)]
    if not found and not inner:
        return "write the trained estimator itself, as joblib.dump(model, ...)"
    *others, last = [f"--item {before}{name}" for name in (found or inner)[:_MOST_NAMED]]
    if not others:
        return f"say {last}"
    together = "; what answers together goes into one Pipeline"
    return f"say which one: {', '.join(others)} or {last}{together}"
