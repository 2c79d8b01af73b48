"""`appliance completion`: what a shell reads to complete commands and options; the shell then asks this command."""

import click
from click.shell_completion import ShellComplete, get_completion_class

from appliance.cli import appliance
from appliance.cli.output import echo

_NAME, _VARIABLE = "appliance", "_APPLIANCE_COMPLETE"
"""The command, and the variable by which the shell asks it (click's convention)."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that lets SHELL complete commands, options and file names.

    \b
    bash  appliance completion bash > ~/.local/share/bash-completion/completions/appliance
    zsh   appliance completion zsh > ~/.appliance.zsh; in ~/.zshrc, after compinit: source ~/.appliance.zsh
    fish  appliance completion fish > ~/.config/fish/completions/appliance.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has all three
    # Not kind.source(): for bash it also runs the bash that is on this machine.
    echo(*ShellComplete.source(kind(appliance, {}, _NAME, _VARIABLE)).splitlines())
