"""Plans the waves of a rollout; decides after each whether it stays or goes back, and whether another follows."""

from __future__ import annotations

CANARY = "appliance_rollout_canary"
WAVES = "appliance_rollout_waves"


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self):
        """Return them by name."""
        mine = (facts, plan, members, serial, decide, reason, told)
        return {one.__name__: one for one in mine}


def facts(hosts, hostvars, name):
    """Return {host: its fact of this name}, None where it has none."""
    return {host: hostvars[host].get(name) for host in hosts}


def share(size, total):
    """Return how many of `total` hosts a size means: a number, or a percentage, rounded up."""
    text = str(size).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise ValueError(f'{size!r} is neither a number of hosts nor a percentage such as "10%"') from None
    if number < 0 or (not text.endswith("%") and number != int(number)):
        raise ValueError(f'{size!r} is neither a number of hosts nor a percentage such as "10%"')
    # In whole numbers: 10 % of 70 is 7, not what floating point rounds up to 8.
    return -(-int(number * 1000) * total // 100_000) if text.endswith("%") else int(number)


def in_waves(hosts, sizes, total):
    """Return the hosts in waves of the given sizes, percentages being of `total`; the last size repeats."""
    left, found = list(hosts), []
    counts = [share(size, total) for size in sizes]
    if not counts or min(counts) < 1:
        raise ValueError(f"the waves {list(sizes)} must each be one host at least")
    while left:
        count = counts[min(len(found), len(counts) - 1)]
        found.append(left[:count])
        left = left[count:]
    return found


def plan(looked_at):
    """Return the plan of a rollout: {total, done, pending, most_pending, stop, groups: [{wave, group, hosts}]}.

    `looked_at` is {host: what the task file due.yml found}. `stop` says why nothing may be changed, "" if it may.
    """
    settings = next((one for one in looked_at.values() if one and "waves" in one), {})
    due = [host for host, one in looked_at.items() if one and one["reachable"] and one["due"]]
    pending = [host for host, one in looked_at.items() if not one or not one["reachable"]]
    faulty = [f"{host}: {one['fault']}" for host, one in looked_at.items() if one and one.get("fault")]
    named = [host for host in settings.get("canary", []) if host in looked_at]
    canary = [host for host in named if host in due] if named else due[:1]
    total = len(looked_at)
    most_pending = share(settings.get("max_pending", 0), total)
    stop = "; ".join(faulty)
    if len(pending) > most_pending:
        stop = _too_many(pending, most_pending)
    elif named and set(named) <= set(pending):
        stop = f"the canary cannot be reached: {', '.join(named)}"
    elif settings.get("canary") and not named:
        stop = f"the canary is none of these hosts: {', '.join(settings['canary'])}"
    rest = [host for host in due if host not in canary]
    done = [host for host in looked_at if host not in due and host not in pending]
    waves = in_waves(rest, settings["waves"], total) if rest and not stop else []
    groups = [("canary", CANARY, [] if stop else canary)]
    groups += [(f"wave {number}", WAVES, wave) for number, wave in enumerate(waves, 1)]
    return {
        "total": total,
        "done": done,
        "pending": pending,
        "most_pending": most_pending,
        "stop": stop,
        "groups": [{"wave": wave, "group": group, "hosts": hosts} for wave, group, hosts in groups if hosts],
    }


def members(groups):
    """Return the arguments of add_host for each host and, before the hosts of each wave, for its gate."""
    found = []
    for number, one in enumerate(groups):
        gate = f"gate of {one['wave']}".replace(" ", "-")
        found.append({"name": gate, "gate": None, "number": number, **one})
        found += [{"name": host, "group": one["group"], "gate": gate} for host in one["hosts"]]
    return found


def serial(groups):
    """Return how many hosts the waves are, each with its gate."""
    return [len(one["hosts"]) + 1 for one in groups if one["group"] == WAVES] or [1]


def decide(found, wave, pending, most_pending):
    """Return what becomes of a wave: {back, stop, pending, proved}.

    `found` is {host: its faults, None where it fell silent}; `pending` are the hosts that were silent before. `back`
    says whether the wave returns to how it was, `stop` why no other wave follows ("" if one may).
    """
    silent = [host for host, faults_ in found.items() if faults_ is None]
    faulty = [f"{host}: {'; '.join(faults_)}" for host, faults_ in found.items() if faults_]
    stop = f"{wave}: {' | '.join(faulty)}" if faulty else ""
    if not stop and wave == "canary" and silent:
        stop = f"canary: {', '.join(silent)} fell silent, so nothing is proved"
    if not stop and len({*pending, *silent}) > most_pending:
        stop = _too_many([*pending, *silent], most_pending)
    proved = [] if faulty else [host for host in found if host not in silent]
    return {"back": bool(faulty), "stop": stop, "pending": silent, "proved": proved}


def _too_many(pending, most_pending):
    """Return the sentence on hosts that cannot be reached."""
    return f"{len(pending)} hosts cannot be reached, {most_pending} may be: {', '.join(pending)}"


def reason(result):
    """Return why a task failed, from its result, as one line."""
    failed = [one for one in result.get("results", []) if one.get("failed")] or [result]
    return "; ".join(_reason(one) for one in failed)


def _reason(result):
    """Return why one step failed."""
    if "censored" in result:
        return "what it said is hidden, since it may hold a secret"
    lines = f"{result.get('msg', '')}\n{result.get('stderr', '')}".strip().splitlines()
    return " ".join(line.strip() for line in lines if line.strip()) or "it failed without a message"


def told(texts):
    """Return sentences of {host: text}; a host without a text has none."""
    return [f"{host}: {text}" for host, text in texts.items() if text]
