"""Topic filters and topic templates: which messages match, and where their answers go. Pure.

Source: MQTT 5.0, section 4.7 (topic names and filters) and 4.8.2 (shared subscriptions).
"""

import re
from collections.abc import Mapping, Sequence

from appliance.errors import ConfigError, InvalidInput

LONGEST = 65535
"""Bytes of a topic, as MQTT writes its length in two of them."""

_PLACE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Filter:
    """A topic filter with `+`, `#` and `$share/GROUP/`; `text` as the broker is asked for it."""

    def __init__(self, text: str) -> None:
        """Raises ConfigError for what is no filter."""
        self.text = text
        plain = text
        self.shared = text.startswith("$share/")
        if self.shared:
            _, _, rest = text.partition("/")
            group, slash, plain = rest.partition("/")
            if not group or not slash or "+" in group or "#" in group:
                raise _no_filter(text, "a shared subscription is $share/GROUP/FILTER")
        self.levels = plain.split("/")
        self._check(text, plain)
        self._pattern = re.compile("/".join(map(_level_pattern, self.levels)).replace("/(.*)", "(?:/(.*))?"), re.DOTALL)
        self.wildcards = sum(level in "+#" for level in self.levels if level)

    def match(self, topic: str) -> tuple[str, ...] | None:
        """Return the levels that the wildcards stand for, `#` for the rest of the topic; None without a match."""
        if topic.startswith("$") and self.levels[0] in ("+", "#"):
            return None
        found = self._pattern.fullmatch(topic)
        return None if found is None else tuple(part or "" for part in found.groups())

    def overlaps(self, other: "Filter") -> bool:
        """Return whether some topic matches both filters."""
        first, second = self.levels, other.levels
        if first[0].startswith("$") != second[0].startswith("$"):
            return False  # a leading wildcard does not match the broker's own topics
        for index in range(max(len(first), len(second))):
            one = first[index] if index < len(first) else None
            two = second[index] if index < len(second) else None
            if one == "#" or two == "#":
                return True
            if one is None or two is None or (one != two and "+" not in (one, two)):
                return False
        return True

    def covers(self, other: "Filter") -> bool:
        """Return whether every topic that matches `other` matches this filter too, none of them shared."""
        if self.shared or other.shared or (other.levels[0].startswith("$") and self.levels[0] in ("+", "#")):
            return False
        for index, level in enumerate(self.levels):
            if level == "#":
                return True
            theirs = other.levels[index] if index < len(other.levels) else None
            if theirs is None or theirs == "#" or level not in ("+", theirs):
                return False
        return len(self.levels) == len(other.levels)

    @staticmethod
    def _check(text: str, plain: str) -> None:
        """Raise ConfigError for what MQTT does not let a filter be."""
        if not plain or "\0" in plain or len(plain.encode("utf-8", "surrogatepass")) > LONGEST:
            raise _no_filter(text, "a filter has 1 to 65535 bytes and no NUL")
        levels = plain.split("/")
        if any(("#" in level and level != "#") or ("+" in level and level != "+") for level in levels):
            raise _no_filter(text, "+ and # stand alone between slashes")
        if "#" in levels[:-1]:
            raise _no_filter(text, "# stands at the end")


class KeyedFilter:
    """A filter whose wildcards have names: `line/{device}/temperature` stands for `line/+/temperature`."""

    def __init__(self, text: str) -> None:
        """Raises ConfigError for what is no such filter."""
        self.names = tuple(_PLACE.findall(text))
        if not self.names or len(set(self.names)) != len(self.names) or not all(map(_NAME.fullmatch, self.names)):
            raise ConfigError(f"topic {text!r}", "it names no key", "write one as {device} between slashes")
        plain = _PLACE.sub("+", text)
        self.filter = Filter(plain)
        if self.filter.wildcards != len(self.names):
            raise ConfigError(f"topic {text!r}", "it has wildcards without a name", "write them as {name}")

    def match(self, topic: str) -> dict[str, str] | None:
        """Return {name: what stands there}; None when the topic does not match."""
        parts = self.filter.match(topic)
        return None if parts is None else dict(zip(self.names, parts, strict=True))


class Template:
    """A topic with places: `{1}` for the first wildcard's part, `{topic}` for the whole incoming topic, or names."""

    def __init__(self, text: str, places: Sequence[str], wide: Sequence[str] = ()) -> None:
        """`wide` are the places that may hold slashes.

        Raises ConfigError for a place that is none of `places`, and for what can be no topic.
        """
        self.text = text
        unknown = [place for place in _PLACE.findall(text) if place not in places]
        if unknown:
            known = ", ".join(f"{{{place}}}" for place in places)
            raise ConfigError(f"topic {text!r}", f"{{{unknown[0]}}} is no place", f"use {known or 'none'}")
        if not is_topic(_PLACE.sub("x", text)):
            raise ConfigError(
                f"topic {text!r}", "it cannot be published to", "leave out + and #, and do not begin by $"
            )
        self._wide = frozenset(wide)

    def render(self, values: Mapping[str, str], guard: Sequence[Filter] = ()) -> str:
        """Return the topic.

        Raises InvalidInput when what stands in its places makes it no topic, or one that `guard` matches.
        """
        topic = _PLACE.sub(lambda place: values[place[1]], self.text)
        if not is_topic(topic) or any(filter_.match(topic) is not None for filter_ in guard):
            found = f"no answer goes to {topic[:80]!r}"
            raise InvalidInput("build the answer's topic", found, "change the incoming one")
        return topic

    def as_filter(self) -> Filter:
        """Return a filter that matches every topic this template can give."""
        levels: list[str] = []
        for level in self.text.split("/"):
            places = _PLACE.findall(level)
            if self._wide.intersection(places):
                return Filter("/".join([*levels, "#"]))
            levels.append("+" if places else level)
        return Filter("/".join(levels))


def answer_template(text: str, filter_: Filter) -> Template:
    """Return the template of the answers to messages of a filter. Raises ConfigError."""
    numbers = [str(number) for number in range(1, filter_.wildcards + 1)]
    wide = ["topic", *(numbers[-1:] if filter_.levels[-1] == "#" else [])]
    return Template(text, ["topic", *numbers], wide)


def values_of(topic: str, parts: Sequence[str]) -> dict[str, str]:
    """Return {place: value} for a topic and the parts that a filter's wildcards took from it."""
    return {"topic": topic, **{str(number): part for number, part in enumerate(parts, 1)}}


def is_topic(text: str) -> bool:
    """Return whether a client may publish to `text`: topics that begin with $ are the broker's own."""
    if not text or text.startswith("$") or any(mark in text for mark in "+#\0"):
        return False
    try:
        return len(text.encode()) <= LONGEST
    except UnicodeEncodeError:
        return False


def _level_pattern(level: str) -> str:
    """Return the regular expression of one level."""
    return {"+": "([^/]*)", "#": "(.*)"}.get(level, re.escape(level))


def _no_filter(text: str, rule: str) -> ConfigError:
    """Return the error for what is no filter."""
    return ConfigError(f"topic filter {text!r}", "it is none", rule)
