"""The ``pubd`` command. Each command lives in a module of its own, which is imported when it is asked for."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from pubd._version import __version__

#: What one wants to do -> commands, each with its module, and the function's name where it is not the command's, and
#: with what it does in half a line. A new command is one function and one row.
SECTIONS = {
    "Set up": {
        "init": ("pubd.cli.init", "write a pubd.toml in which every key is explained"),
        "check": ("pubd.cli.offline", "is a pubd.toml right, and what it names well?"),
        "token": ("pubd.cli.token", "make tokens for those who hand in messages"),
        "completion": ("pubd.cli.completion", "the script with which a shell completes all this"),
    },
    "Hand in": {
        "send": ("pubd.cli.send", "hand in a message, or a file of them"),
    },
    "Look": {
        "status": ("pubd.cli.status", "is pubd healthy, what waits, why, what to do"),
        "top": ("pubd.cli.top", "a screen that goes on: rates, lanes, what is held"),
        "tail": ("pubd.cli.tail", "what becomes of messages, while it happens"),
        "list": ("pubd.cli.listing:list_messages", "messages, a line each"),
        "show": ("pubd.cli.show", "what is known of one message"),
        "trace": ("pubd.cli.trace", "what happened to one message"),
    },
    "Decide": {
        "retry": ("pubd.cli.operate", "publish parked messages again"),
        "discard": ("pubd.cli.operate", "drop messages for good"),
        "hold": ("pubd.cli.operate", "do not publish messages until they are released"),
        "release": ("pubd.cli.operate", "let held messages go on"),
        "pause": ("pubd.cli.steer", "publish nothing for now, to one exchange or to all"),
        "resume": ("pubd.cli.steer", "publish again"),
        "flush": ("pubd.cli.steer", "try everything now"),
    },
    "Run": {
        "reload": ("pubd.cli.reload", "read pubd.toml again, and say what that changed"),
        "drain": ("pubd.cli.drain", "accept nothing more, publish what is there"),
    },
    "Keep": {
        "backup": ("pubd.cli.backup", "copy the spool, while pubd goes on"),
        "export": ("pubd.cli.offline", "every open message as NDJSON"),
        "import": ("pubd.cli.importing:import_messages", "hand in what was exported, each message once"),
        "verify": ("pubd.cli.offline", "is the spool whole, do its books balance?"),
    },
}
COMMANDS = {name: place for rows in SECTIONS.values() for name, (place, _) in rows.items()}


class _Lazy(click.Group):
    """Imports a command when it is called: most of them need not wait for Twisted or the spool, nor does --help."""

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a word that is no command is answered with the one that is next to it."""
        if args and args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, n=1)):
            ctx.fail(f"there is no command {args[0]!r}; did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for title, rows in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(max(map(len, COMMANDS))), what) for name, (_, what) in rows.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pubd")
def main() -> None:
    """Publish to RabbitMQ and answer for every message."""
