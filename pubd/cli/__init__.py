"""The ``pubd`` command. Each command lives in a module of its own, which is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from pubd._version import __version__

#: Command -> module, and the function's name where it is not the command's. A new command is one function and one row.
COMMANDS = {
    "backup": "pubd.cli.backup",
    "check": "pubd.cli.offline",
    "completion": "pubd.cli.completion",
    "discard": "pubd.cli.operate",
    "drain": "pubd.cli.drain",
    "export": "pubd.cli.offline",
    "flush": "pubd.cli.steer",
    "hold": "pubd.cli.operate",
    "import": "pubd.cli.importing:import_messages",
    "init": "pubd.cli.init",
    "list": "pubd.cli.listing:list_messages",
    "pause": "pubd.cli.steer",
    "reload": "pubd.cli.reload",
    "release": "pubd.cli.operate",
    "resume": "pubd.cli.steer",
    "retry": "pubd.cli.operate",
    "send": "pubd.cli.send",
    "show": "pubd.cli.show",
    "status": "pubd.cli.status",
    "tail": "pubd.cli.tail",
    "token": "pubd.cli.token",
    "top": "pubd.cli.top",
    "trace": "pubd.cli.trace",
    "verify": "pubd.cli.offline",
}


class _Lazy(click.Group):
    """Imports a command when it is called or described: most of them need not wait for Twisted or the spool."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: Any = getattr(import_module(module), name or cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pubd")
def main() -> None:
    """Publish to RabbitMQ and answer for every message."""
