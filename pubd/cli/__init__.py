"""The ``pubd`` command. Each command lives in a module of its own, which is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from pubd._version import __version__

#: Command -> where it is. A new command is one function and one row.
COMMANDS = {
    "check": "pubd.cli.offline",
    "completion": "pubd.cli.completion",
    "export": "pubd.cli.offline",
    "send": "pubd.cli.send",
    "token": "pubd.cli.token",
    "verify": "pubd.cli.offline",
}


class _Lazy(click.Group):
    """Imports a command when it is called or described: most of them need not wait for Twisted or the spool."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: Any = getattr(import_module(module), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pubd")
def main() -> None:
    """Publish to RabbitMQ and answer for every message."""
