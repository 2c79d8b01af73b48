"""The commands on experiments: shadow, canary, split; experiment, promote, abort."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from appliance.cli import EXIT_DONE, as_json, common_options, options, waiting, why
from appliance.cli.models import DIFFERS, self_test, store_of
from appliance.cli.output import echo, print_json
from appliance.errors import Misuse, Refused
from appliance.experiments import control, info
from appliance.experiments.info import Ended
from appliance.store import experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Plan, Routing
from appliance.store.versions import Store

F = TypeVar("F", bound=Callable[..., Any])

# Its second name is that of the versions before 1.0.0.
inputs_changed = click.option(
    "--inputs-changed", "--schema-may-differ", "inputs_changed", is_flag=True, help=f"{DIFFERS}."
)


def _number(name: str, kind: type, help_: str) -> Callable[[F], F]:
    """Return an option for a number of the plan, which has its default in the configuration."""
    flag = f"--{name.replace('_', '-')}"
    return click.option(flag, type=kind, help=f"{help_}  [default: [experiments] {name}]")


_alpha = _number("alpha", float, "The chance, of each test, that it acts although the versions are alike.")
_key = click.option(
    "--key", default="header", metavar="COLUMN|header|caller", show_default=True,
    help="What keeps a caller at one version: a column of the row, the header X-Routing-Key, or the caller's token.",
)  # fmt: skip


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--share", default=1.0, show_default=True, help="Share of the rows that it gets, 0 to 1.")
@inputs_changed
@why
@as_json
@common_options
def shadow(name: str, version: str, share: float, inputs_changed: bool, why: str, as_json: bool) -> None:
    """Run VERSION of the model NAME on the live rows too, and compare; its answers are not sent to anybody."""
    _begin(name, control.shadow(version, share, plan=_plan(schema_may_differ=inputs_changed)), why, as_json)


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--steps", default="1,5,25,50", show_default=True, help="Percent of the requests, one for each step.")
@_number("min_requests", int, "Requests that a step takes at least.")
@_number("min_seconds", float, "Seconds that a step takes at least.")
@_number("max_seconds", float, "Seconds after which a step with too little traffic is called inconclusive.")
@_number("margin", float, "How far its share of failures may be above the active version's.")
@_alpha
@click.option("--hold", is_flag=True, help="Wait at each step for `appliance promote`.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end: exit code 0 promoted, 3 taken back.")
@waiting.timeout
@_key
@inputs_changed
@why
@as_json
@common_options
def canary(
    name: str,
    version: str,
    steps: str,
    hold: bool,
    waits: bool,
    timeout: float | None,
    key: str,
    inputs_changed: bool,
    why: str,
    as_json: bool,
    **numbers: float | None,
) -> None:
    """Let VERSION of the model NAME shadow, then answer a rising share of the requests, then all.

    The running service begins each step when the one before has enough good requests, and takes the version back when
    it is worse.
    """
    plan = _plan(hold=hold, schema_may_differ=inputs_changed, **numbers)
    routing = _begin(name, control.canary(version, _percents(steps), key=key, plan=plan), why, as_json and not waits)
    if waits:
        _wait(store_of(), name, routing, as_json, timeout)


@click.command()
@click.argument("name")
@click.argument("shares", nargs=-1, required=True, metavar="VERSION=PERCENT...")
@_key
@_alpha
@inputs_changed
@why
@as_json
@common_options
def split(
    name: str,
    shares: Sequence[str],
    key: str,
    alpha: float | None,
    inputs_changed: bool,
    why: str,
    as_json: bool,
) -> None:
    """Let several versions of the model NAME answer, each its share of the requests: 1.0.0=90 2.0.0=10."""
    plan = _plan(schema_may_differ=inputs_changed, alpha=alpha)
    _begin(name, control.split(_shares(shares), key=key, plan=plan), why, as_json)


@click.command()
@click.argument("name")
@as_json
@common_options
def experiment(name: str, as_json: bool) -> None:
    """Show the experiment that runs on the model NAME, and what is known so far."""
    told = info.info(store_of(), name)
    if as_json:
        print_json(told)
    else:
        echo(*info.described(told))


@click.command()
@click.argument("name")
@click.argument("version", required=False)
@click.option("--now", is_flag=True, help="Go live at once, where a canary is held at each step.")
@why
@as_json
@common_options
def promote(name: str, version: str | None, now: bool, why: str, as_json: bool) -> None:
    """Make the challenger of the model NAME the active version, or begin the next step of a canary that is held.

    VERSION says which one, where there are several.
    """
    store = store_of()
    done = control.go_on(store, name, self_test, version=version, now=now, why=why)
    if as_json:
        print_json(info.info(store, name))
    elif isinstance(done, Routing):
        echo(*info.described(info.info(store, name)))
    else:
        echo(f"{name} {done.active} is active, {done.state}, rollback returns to {done.previous}")


@click.command()
@click.argument("name")
@why
@as_json
@common_options
def abort(name: str, why: str, as_json: bool) -> None:
    """End the experiment of the model NAME: the active version answers all requests."""
    store = store_of()
    ended = experiments.abort(store, name, why=why)
    if as_json:
        print_json(info.info(store, name))
    elif ended is None:
        echo(f"a record by which nothing was routed is deleted; the active version of {name} answers all requests")
    else:
        echo(f"{ended.described} is ended; {name} {ended.base} answers all requests")


def _plan(*, hold: bool = False, schema_may_differ: bool = False, **numbers: float | None) -> Plan:
    """Return the plan; a number that is None is as the settings have it. Raises Misuse."""
    settings = options().config().experiments
    return control.plan_of(settings, hold=hold, schema_may_differ=schema_may_differ, **numbers)


def _begin(name: str, wish: Wish, why: str, as_json: bool) -> Routing:
    """Begin an experiment and print it."""
    config = options().config()
    store = Store.of(config)
    wish = msgspec.structs.replace(wish, max_memory_bytes=control.memory_bytes(config))
    routing = experiments.begin(store, name, wish, self_test, why=why)
    if as_json:
        print_json(info.info(store, name))
    else:
        echo(*info.described(info.info(store, name)))
    return routing


def _wait(store: Store, name: str, routing: Routing, as_json: bool, timeout: float | None) -> None:
    """Tell of each step until the experiment has ended.

    Raises Refused where its version was not promoted, NotReady as waiting.wait_for does.
    """
    step = routing.step

    def ended_now() -> Ended | None:
        nonlocal step
        if (ended := info.end_of(store, name, routing)) is not None:
            return ended
        now = experiments.read(store, name)
        if now is not None and now.step != step and not as_json:
            step = now.step
            echo(f"step {step} of {len(now.plan.steps)}: {now.challengers[0]} answers {_percent(now)} of the requests")
        return None

    then = f"it runs on; see: appliance experiment {name}"
    ended = waiting.wait_for(ended_now, f"wait for {routing.described}", then, timeout)
    if as_json:
        print_json(info.info(store, name))
    if ended.outcome != "promoted":
        found = f"it was {ended.outcome}" + (f": {ended.why}" if ended.why else "")
        raise Refused(f"{routing.described}", found, f"see: appliance experiment {name}")
    if not as_json:
        echo(f"{name} {ended.version} is active")
    click.get_current_context().exit(EXIT_DONE)


def _percent(routing: Routing) -> str:
    """Return the share of a canary's challenger."""
    return f"{100 * routing.arms[-1].share:g} %"


def _percents(text: str) -> list[float]:
    """Return the numbers of a list as 1,5,25,50. Raises Misuse."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise Misuse(f"read --steps {text}", "it is no list of numbers", "write as 1,5,25,50") from error


def _shares(arguments: Sequence[str]) -> dict[str, float]:
    """Return {version: percent} of arguments as 1.0.0=90. Raises Misuse."""
    shares: dict[str, float] = {}
    for argument in arguments:
        version, _, percent = argument.partition("=")
        try:
            share = float(percent.removesuffix("%"))
        except ValueError as error:
            raise Misuse(f"read {argument}", "it is no version and share", "write as 1.0.0=90") from error
        if version in shares:
            raise Misuse(f"read {argument}", f"{version} stands there twice", "name each version once")
        shares[version] = share
    return shares
