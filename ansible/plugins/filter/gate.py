"""Decides whether a host is in the stated state, whether it is well, and whether it is worse than before."""

from __future__ import annotations

LEAST_REQUESTS = 20
"""With fewer answered requests before the change the latency is not compared. After it any number is enough: a slow
version answers few in the same time."""
LIMITS = {"error_rate": 0.0, "latency_ratio": 2.0, "latency_slack": 0.005}
"""Limits for getting worse: a share of requests, a factor, and seconds below which a difference is noise."""


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self):
        """Return them by name."""
        return {
            "faults": faults,
            "erring": erring,
            "slower": slower,
            "is_due": is_due,
            "served": served,
        }


def faults(readings, wanted=None):
    """Return why a host is not well, as sentences; `wanted` is {model: version} that must be active and tested."""
    found = [] if readings["ready"] else [f"not ready: {'; '.join(map(str, readings['reasons'])) or 'no reason given'}"]
    window = readings["window"]
    if window.get("not_ready"):
        why = "; ".join(map(str, window["reasons"]))
        found.append(f"not ready in {window['not_ready']} of {window['looks']} looks while it was watched: {why}")
    if window and not window["counted"]:
        found.append("the service restarted, or gave no counters, while it was watched")
    for name, version in (wanted or {}).items():
        found += _unlike(name, version, readings["models"].get(name, {}))
    found += [text for name, probe in readings["probes"].items() for text in _wrong(name, probe)]
    return [_plain(text) for text in found]


def _unlike(name, version, model):
    """Return what is wrong with a model of which `version` should serve: by the host's own word, where it has one."""
    verdict = model.get("probation") or {}
    if model.get("active") != version:
        why = f" ({model['why']})" if model.get("why") else ""
        return [f"{name}: {model.get('active')} is active, not {version}{why}"]
    found = [] if model.get("self_test") else [f"{name} {version}: no self-test is on record"]
    if verdict.get("action") == "go back":
        found.append(f"{name}: {verdict.get('verdict')}")
    return found


def _plain(text):
    """Return a host's text with what a terminal would obey, or not show, as its number: ESC as \\x1b."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _wrong(name, probe):
    """Return what is wrong with the answers to a bundle's examples."""
    document = probe["document"]
    if not probe["code"]:
        return []
    if probe["code"] == 3 and document:
        found = f"{document.get('failures')} of {document.get('examples')} examples are answered otherwise"
        return [f"{name}: {found}, largest difference {document.get('largest_difference')} {document.get('found', '')}"]
    return [f"{name}: the probe ended with {probe['code']}: {probe['error'] or document.get('found', '')}"]


def judged(after, before):
    """Return the models whose version the host itself has marked good since: its own tests have the say about them.

    A version on which it has no verdict yet is compared by its counts, before it is marked good from here.
    """
    then = (before or {}).get("models", {})
    return {
        name
        for name, model in after["models"].items()
        if model.get("probation") and model.get("state") == "good"
        and (then.get(name, {}).get("active"), then.get(name, {}).get("state")) != (model.get("active"), "good")
    }  # fmt: skip


def erring(after, before, limits=None):
    """Return, as sentences, of which models more requests end in an error of the service than before."""
    allowed, known = _allowed(limits), judged(after, before)
    then = (before or {}).get("window", {}).get("models", {})
    counted = {name: now for name, now in after["window"].get("models", {}).items() if name not in known}
    return [text for name, now in counted.items() for text in _more_errors(name, now, then.get(name), allowed)]


def slower(after, before, limits=None):
    """Return, as sentences, which models answer slower than before; what was not there before is not compared."""
    allowed, known = _allowed(limits), judged(after, before)
    found = []
    for name in sorted({*after["window"].get("models", {}), *after["probes"]} - known):
        for what, old, new in _latencies(name, after, before):
            if new > old * allowed["latency_ratio"] + allowed["latency_slack"]:
                found.append(f"{name}: {what} took {old * 1000:.1f} ms, now {new * 1000:.1f} ms")
    return found


def _allowed(limits):
    """Return the limits as numbers, with the defaults."""
    return {**LIMITS, **{key: float(value) for key, value in (limits or {}).items()}}


def _more_errors(name, now, then, allowed):
    """Return the sentence on errors of the service, if there are more of them."""
    rate, before = _rate(now), _rate(then)
    if rate <= before + allowed["error_rate"]:
        return []
    return [
        f"{name}: {rate:.2%} of {now['requests']:.0f} requests ended in an error of the service, {before:.2%} before"
    ]


def _rate(counts):
    """Return the share of requests that ended in an error of the service; 0 without any."""
    return counts["errors"] / counts["requests"] if counts and counts["requests"] else 0.0


def _latencies(name, after, before):
    """Return [(what, seconds before, seconds after)] of a model: a request on average, and the probe's median."""
    found = []
    then, now = ((side or {}).get("window", {}).get("models", {}).get(name) for side in (before, after))
    if then and now and then["answered"] >= LEAST_REQUESTS and now["answered"]:
        found.append(("a request", *(one["seconds"] / one["answered"] for one in (then, now))))
    probes = [(side or {}).get("probes", {}).get(name, {}).get("document", {}) for side in (before, after)]
    medians = [(one.get("seconds") or {}).get("median") for one in probes]
    if None not in medians:
        found.append(("an example", *medians))
    return found


def is_due(readings, wanted, program_digest=""):
    """Return whether a host is not in the stated state yet, or has not proved itself in it."""
    if not readings["installed"] or not readings["ready"] or readings["unfinished"]:
        return True
    if program_digest and readings["program_digest"] != program_digest:
        return True
    models = readings["models"]
    return any(
        (models.get(name, {}).get("active"), models.get(name, {}).get("state")) != (version, "good")
        for name, version in wanted.items()
    )


def served(readings, wanted):
    """Return {model: version} of the stated models that were active."""
    active = {name: readings["models"].get(name, {}).get("active") for name in wanted}
    return {name: version for name, version in active.items() if version}
