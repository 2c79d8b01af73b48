"""The command `appliance`: its subcommands, the options they all take, and which error ends in which exit code.

Nothing heavy is imported here: a subcommand's module is loaded when it is called, and numpy and onnxruntime by those
that run a model.
"""

import difflib
import importlib
import os
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from appliance import __version__, extras, signals
from appliance.cli import owner
from appliance.cli.output import echo, echo_error, echo_error_json
from appliance.config import Config
from appliance.errors import ApplianceError, Misuse, NotFound, Refused
from appliance.plain_text import plain
from appliance.settings import load

TRIAL = "__trial__"  # inference.trial.WORD, which is not imported for it
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_CODES: Sequence[tuple[type[ApplianceError], int]] = ((Misuse, 2), (Refused, 3), (NotFound, 4))
"""Error type -> exit code; the other kinds of error end in EXIT_FAILED."""

# name -> (module:command, its line in the list of commands), in the order in which a user needs them
_COMMANDS = {
    "inspect": ("appliance.cli.models:inspect", "Show what a bundle holds."),
    "keygen": ("appliance.cli.signing:keygen", "Make a pair of keys for signing bundles."),
    "sign": ("appliance.cli.signing:sign", "Sign a bundle."),
    "verify": (
        "appliance.cli.models:verify",
        "Check that a bundle is sound; with --key, who signed it; with --self-test, that it answers right here.",
    ),
    "install": ("appliance.cli.models:install", "Put a bundle into the store."),
    "activate": ("appliance.cli.models:activate", "Make an installed version the one that serves."),
    "mark-good": ("appliance.cli.models:mark_good", "Mark the active version good: its probation ends."),
    "rollback": ("appliance.cli.models:rollback", "Return to the version that served before."),
    "shadow": (
        "appliance.cli.experiments:shadow",
        "Run a version on the live rows beside the active one, and compare.",
    ),
    "canary": ("appliance.cli.experiments:canary", "Let a version answer a rising share of the requests, then all."),
    "split": ("appliance.cli.experiments:split", "Let several versions answer, each a share of the requests."),
    "experiment": ("appliance.cli.experiments:experiment", "Show the experiment that runs on a model."),
    "promote": ("appliance.cli.experiments:promote", "Make an experiment's version the active one."),
    "abort": ("appliance.cli.experiments:abort", "End an experiment: the active version answers alone."),
    "deactivate": ("appliance.cli.models:deactivate", "Let no version of a model serve."),
    "models": ("appliance.cli.models:models", "List what is installed and what is active."),
    "remove": ("appliance.cli.models:remove", "Delete an installed version."),
    "pull": (
        "appliance.cli.pull:pull",
        "Fetch and install signed bundles from a folder, a web server or an OCI registry.",
    ),
    "index": ("appliance.cli.pull:index", "List a folder's bundles for hosts that pull."),
    "predict": ("appliance.cli.predict:predict", "Answer a few rows, without a service."),
    "score": ("appliance.cli.score:score", "Score whole files, without a service."),
    "serve": ("appliance.cli.serve:serve", "Answer predictions over HTTP."),
    "status": ("appliance.cli.status:status", "Show this host, its models and its service."),
    "log": ("appliance.cli.log:log", "Verify, prove, erase, export and show the log of predictions."),
    "replay": ("appliance.cli.replay:replay", "Run a version on the logged rows again, and compare."),
    "labels": ("appliance.cli.labels:labels", "Add labels (the true values of predicted rows) from a file."),
    "probe": ("appliance.cli.probe:probe", "Send a bundle's examples to the running service, and compare its answers."),
    "drift": ("appliance.cli.drift:drift", "Show what has drifted from training and from this host's own past."),
    "doctor": ("appliance.cli.doctor:doctor", "Check whether this host has what the appliance needs."),
    "history": ("appliance.cli.history:history", "Show what was done to the models of this host."),
    "backup": ("appliance.cli.backup:backup", "Write the state folder to a file, while services use it."),
    "restore": ("appliance.cli.backup:restore", "Make the state folder what a backup holds."),
    "completion": ("appliance.cli.completion:completion", "Print what lets a shell complete commands and options."),
}
_PLUGIN_GROUP = "appliance.commands"
# Commands of the build machine, in the package and with the extra `convert`: what the list of commands says about each.
_CONVERT = {
    "convert": "Turn a trained scikit-learn model into a bundle, with proof.",
    "lint": "Say which steps of a model will convert, before it is trained.",
}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Options:
    """The options that every command takes, given before or after the subcommand's name."""

    state_dir: str | None = None
    config_file: Path | None = None
    debug: bool = False
    json: bool = False
    """Whether errors are printed as JSON too."""

    def config(self, *, files: Sequence[Path] = (), **overrides: dict[str, Any]) -> Config:
        """Return the configuration; `overrides` are {section: {key: value}} of the command's own options.

        Who asks for it is about to use the state folder: root has become its owner afterwards. `files` were named on
        the command line, and are opened before. Raises ConfigError, StoreError.
        """
        config = self.config_only(**overrides)
        owner.become(config, files)
        return config

    def config_only(self, **overrides: dict[str, Any]) -> Config:
        """Return the configuration as config() does; who this process is stays as it is. Raises ConfigError."""
        if self.state_dir is not None:
            overrides = {**overrides, "store": {**overrides.get("store", {}), "state_dir": self.state_dir}}
        return load(self.config_file, overrides=overrides)


def main() -> None:
    """Run the command with the arguments of this process, and end it with its exit code."""
    if sys.argv[1:2] == [TRIAL]:
        from appliance.inference import trial_process

        sys.exit(trial_process.main())
    if "serve" in sys.argv[1:]:
        signals.hold_off()  # as early as possible: a reload must not end a service that is starting
    # New files stay usable by their owner, and nobody else can write them, whatever the caller's umask is.
    os.umask((os.umask(0o077) | 0o002) & 0o077)
    warnings.showwarning = _warn
    appliance.main(prog_name="appliance")


def options() -> Options:
    """Return the common options of the command that runs."""
    return click.get_current_context().find_root().ensure_object(Options)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
why = click.option("--why", default="", help="The reason, for the receipts.")
version_option = click.option("--version", "version", help="The version that answers (default: the active one).")


def common_options(command: F) -> F:
    """Give a command the options that every command takes; `options()` returns their values."""
    for name, kind, text, extra in (
        ("--debug", bool, "Show where in the program an unexpected error was.", {"is_flag": True}),
        ("--config", Path, "Configuration file (TOML).", {"envvar": "APPLIANCE_CONFIG", "metavar": "FILE"}),
        ("--state-dir", str, "State folder [env: APPLIANCE_STATE_DIR].", {"metavar": "DIR"}),
    ):
        option = click.option(
            name, type=kind, help=text, expose_value=False, callback=_remember, show_envvar=True, **extra
        )
        command = option(command)
    return command


class Appliance(click.Group):
    """A group that loads a subcommand when it is called, and turns errors into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every subcommand's name: the device's own, then those of plugins.

        `convert` and `lint` are listed where pip can complete them, and left out of the binary and the images.
        """
        brought = [point.name for point in _plugins() if point.name not in _CONVERT]
        return [*_COMMANDS, *(_CONVERT if find_spec("convert") else ()), *brought]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand, its module loaded."""
        if cmd_name in _COMMANDS:
            return _import(_COMMANDS[cmd_name][0])
        lacking = _lacking_of_convert() if cmd_name in _CONVERT else []
        point = next((point for point in _plugins() if point.name == cmd_name), None)
        if point is not None and not lacking:
            return _load_plugin(point)
        if cmd_name not in _CONVERT:
            return None
        next_step = f"on the build machine: {extras.how_to_get('convert')}"
        return _absent(cmd_name, f"this installation lacks {', '.join(lacking) or 'it'}", next_step)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading any of them."""
        needs = " Needs the extra [convert]." if _lacking_of_convert() else ""
        texts = {name: text for name, (_, text) in _COMMANDS.items()}
        texts |= {name: f"{text}{needs}" for name, text in _CONVERT.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, texts.get(name, "Brought by a plugin.")) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand; for an unknown name the error lists similar ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx))
            if not close:
                raise
            raise click.UsageError(f"No such command {args[0]!r}; did you mean {' or '.join(close)}?", ctx) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the subcommand; --json applies from here on, even to errors in what follows."""
        ctx.ensure_object(Options).json = "--json" in args[: args.index("--") if "--" in args else None]
        return super().parse_args(ctx, args)

    def make_context(self, *arguments: Any, **rest: Any) -> click.Context:
        """Read the options; an error about them is printed without the caller's control characters."""
        try:
            return super().make_context(*arguments, **rest)
        except click.ClickException as error:
            raise _plainly(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; the one place where an error becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except ApplianceError as error:
            report(error)
            ctx.exit(exit_code(error))
        except click.ClickException as error:
            if options().json:
                misuse = Misuse("read the command line", error.format_message(), "see --help")
                echo_error_json(misuse, error.exit_code)
            raise _plainly(error) from error
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - the last place before the user: every error gets a message
            found = f"unexpected {type(error).__name__}: {error}"
            report(ApplianceError("run the command", found, "repeat it with --debug and report what it shows"))
            ctx.exit(EXIT_FAILED)


def _plainly(error: click.ClickException) -> click.ClickException:
    """Return a Misuse whose text has no control characters of what was typed or expanded."""
    text = error.format_message()
    if plain(text) == text:
        return error
    return click.UsageError(plain(text), getattr(error, "ctx", None))


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning of a library, which may quote a file."""
    echo(f"warning: {message} ({category.__name__} at {filename}:{lineno})", err=True)


def exit_code(error: ApplianceError) -> int:
    """Return the exit code of an error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), EXIT_FAILED)


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print our version on the first line, and the libraries' versions below it: security advisories name those."""
    if not value:
        return
    import ssl  # takes longer to import than the commands that do not need it

    echo(f"appliance, version {__version__}", f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}")
    ctx.exit()


@click.group(cls=Appliance, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def appliance() -> None:
    """Carry a trained model to this host, with proof that it still answers the same, and serve it here."""


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a common option's value; what stands after the subcommand's name wins over what stands before it."""
    kept = ctx.find_root().ensure_object(Options)
    name = {"state_dir": "state_dir", "config": "config_file", "debug": "debug"}[str(parameter.name)]
    from_environment = ctx.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.ENVIRONMENT
    if value and not (from_environment and getattr(kept, name)):
        setattr(kept, name, value)


common_options(appliance)


def report(error: ApplianceError) -> None:
    """Write an error to standard error, and with --json as one document to standard output too."""
    if options().json:
        echo_error_json(error, exit_code(error))
    echo_error(error, trace=options().debug)


def _plugins() -> list[EntryPoint]:
    """Return the commands that installed distributions bring."""
    return sorted(entry_points(group=_PLUGIN_GROUP), key=lambda point: point.name)


def _load_plugin(point: EntryPoint) -> click.Command:
    """Return a plugin's command, or one that says why it cannot be loaded."""
    try:
        command = point.load()
    except ImportError as error:
        return _absent(point.name, f"this installation lacks it ({error})", "install what the plugin needs")
    if not isinstance(command, click.Command):
        raise Misuse(
            f"appliance {point.name}", f"{point.value} is no command", "reinstall the distribution that brings it"
        )
    return command


def _lacking_of_convert() -> list[str]:
    """Return what the commands of the build machine lack here: their own package, or libraries of the extra."""
    return extras.lacking("convert") if find_spec("convert") else ["the package convert"]


def _absent(name: str, found: str, next_step: str) -> click.Command:
    """Return a command that says why the one of this name is not here, whatever arguments it is given."""

    @click.command(name, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("_rest", nargs=-1, type=click.UNPROCESSED)
    def absent(_rest: tuple[str, ...]) -> None:
        raise Misuse(f"appliance {name}", found, next_step)

    return absent


def _import(place: str) -> click.Command:
    """Return the command at `module:attribute`."""
    module, _, attribute = place.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command), place  # noqa: S101 - a mistake in the table above, not of a user
    return command
