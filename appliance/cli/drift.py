"""`appliance drift`: show what has drifted on this host, and accept a change."""

from typing import Any

import click

from appliance.bundle import archive, baseline, members
from appliance.cli import as_json, common_options, options
from appliance.cli.output import echo, print_json
from appliance.drift_report import ColumnReport, DriftReport
from appliance.errors import Misuse, NotFound
from appliance.store import activation, receipts
from appliance.store.versions import Store

_SHOWN = 20  # columns that are shown to a person


class _Drift(click.Group):
    """`drift NAME` shows; only a subcommand's own name is one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand, `show` where the first word is none."""
        known = args[0] in self.commands and len(args) > 1
        return super().resolve_command(ctx, args if known else ["show", *args])


@click.group(cls=_Drift, invoke_without_command=False, subcommand_metavar="NAME | accept NAME --why TEXT")
def drift() -> None:
    """Show what has drifted: whether rows still look like those of training, and of this host's own past.

    `appliance drift NAME` shows the active version; `appliance drift accept NAME` accepts a change. For a model named
    accept or show, write `appliance drift show NAME`.
    """


@drift.command()
@click.argument("name")
@click.option("--version", help="Another version than the active one.")
@as_json
@common_options
def show(name: str, version: str | None, as_json: bool) -> None:
    """Show what has drifted in the rows of the model NAME."""
    store = Store.of(options().config())
    report = _report(store, name, version or _active(store, name))
    if as_json:
        print_json(report)
    else:
        echo(*_lines(report))


@drift.command()
@click.argument("name")
@click.option("--version", help="Another version than the active one.")
@click.option("--why", required=True, help="The reason, for the receipts.")
@as_json
@common_options
def accept(name: str, version: str | None, why: str, as_json: bool) -> None:
    """Accept the drift of the model NAME: the host's own reference is made again."""
    from appliance.monitoring import drift_judge, drift_state
    from appliance.monitoring.drift_tables import Tables

    if not why.strip():
        raise Misuse("accept the drift", "--why is empty", "say why: it stands in the receipts")
    store = Store.of(options().config())
    version = version or _active(store, name)
    folder = store.folder(name, version)
    bundle = archive.whole(store.installed(name, version))
    content = bundle.members.get(members.BASELINE)
    with store.writing(f"accept the drift of {name} {version}"):
        state = drift_state.read(store, (name, version))
        if state is None or content is None:
            found = f"no window of {name} {version} has closed on this host"
            raise NotFound("accept the drift", found, f"look again later: appliance drift {name}")
        tables = Tables(bundle.manifest, baseline.read(content))
        if state.layout != tables.layout:
            found = f"what was counted is not of the columns in {folder}"
            raise NotFound("accept the drift", found, "wait for the next window to close")
        after = drift_judge.accepted(tables, state, receipts.now())
        drift_state.write(store, (name, version), after)
        store.note("accept drift", name, version, why=why)
    document = {"model": name, "version": version, "accepted": after.accepted, "windows": len(after.windows)}
    if as_json:
        print_json({**document, "device_reference": after.frozen})
        return
    echo(f"{name} {version}: accepted" + (f", off training: {', '.join(after.accepted)}" if after.accepted else ""))
    least = drift_state.LEAST_WINDOWS
    made = f"made of {len(after.windows)} windows" if after.frozen else f"starts again, from {least} windows on"
    echo(f"the host's own reference is {made}" if after.frozen else f"the host's own reference {made}")


def _active(store: Store, name: str) -> str:
    """Return the version of a model that serves. Raises NotFound."""
    store.folder(name, next(iter(store.versions(name)), ""))  # tells of an unknown model
    active = activation.read(store, name).active
    if active is None:
        raise NotFound(f"show the drift of {name}", "no version is active", "name one with --version")
    return active


def _report(store: Store, name: str, version: str) -> DriftReport:
    """Return the last report of a version."""
    from appliance.monitoring import drift_state

    store.folder(name, version)
    state = drift_state.read(store, (name, version))
    report = state.report if state else None
    return report or DriftReport(model=name, version=version, warnings=["no window has closed yet"])


def _lines(report: DriftReport) -> list[str]:
    """Return a report for a person, the worst columns first."""
    since = f" since {report.since}" if report.state in ("watch", "drift") else ""
    lines = [f"{report.model} {report.version}: {report.state}{since}"]
    if report.window_ended:
        seconds = f"{report.window_seconds / 60:.0f} min"
        lines.append(f"  last window: {report.window_rows} rows in {seconds}, ended {report.window_ended}")
    own = f"{report.device_windows} windows, frozen {report.device_reference}" if report.device_reference else "not yet"
    lines.append(f"  the host's own reference: {own}")
    if report.estimated_accuracy is not None:
        lines.append(f"  estimated accuracy: {report.estimated_accuracy:.1%} (of calibrated probabilities)")
    lines += [f"  warning: {one}" for one in report.warnings]
    drifting = report.drifting()
    rest = [one for one in report.columns if one not in drifting]
    for column in [*drifting, *rest][:_SHOWN]:
        lines += [f"  {column.column:<24} {column.state:<12} {_figures(column)}".rstrip()]
        lines += [f"    {reason}" for reason in column.because]
    if len(report.columns) > _SHOWN:
        lines.append(f"  and {len(report.columns) - _SHOWN} more columns; all by --json")
    return lines


def _figures(column: ColumnReport) -> str:
    """Return the figures of a column that say something."""
    found: list[Any] = [f"PSI {index:.3f} ({name})" for name, index in column.psi.items()]
    if column.mean_shift is not None:
        found.append(f"mean {column.mean_shift:+.2f} deviations")
    shares = {"missing": column.missing, "beyond": column.beyond, "unseen": column.unseen}
    found += [f"{name} {share:.2%}" for name, share in shares.items() if share]
    found += [f"refused {column.refused}"] if column.refused else []
    found += [f"{one.value!r} {one.rows}x" for one in column.unseen_values[:3]]
    return ", ".join(found)
