"""``pubd completion``: the script with which a shell completes pubd's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pubd.cli.failure import USAGE, Failure

#: What the shell sets when it asks pubd for completions.
VARIABLE = "_PUBD_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL: eval "$(pubd completion bash)" in ~/.bashrc."""
    found = get_completion_class(shell)
    if found is None:
        raise Failure(f"no completion is known for {shell}; there is one for {', '.join(SHELLS)}", USAGE)
    click.echo(found(ctx.find_root().command, {}, "pubd", VARIABLE).source())
