"""pubd(1), made from the commands themselves: `python packaging/man.py >pubd.1`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from pubd._version import __version__
from pubd.cli import main

FILES = {
    "/etc/pubd/pubd.toml": "The configuration of the service.",
    "/etc/pubd/credentials/": "Files that systemd hands to the service: the URLs of the brokers, tokens, keys.",
    "/run/pubd/http.sock, /run/pubd/lines.sock": "Where the service listens; for root and the group pubd-clients.",
    "/var/lib/pubd/pubd.db": "The spool: every message that is not settled yet.",
}
CODES = {
    "0": "Done.",
    "1": "The daemon said no.",
    "2": "The command line is wrong.",
    "3": "The daemon cannot be reached.",
    "4": "A message was returned or parked.",
    "75": "Try again later: full, busy or stopping.",
    "78": "The configuration is wrong.",
}


def quoted(text: str) -> str:
    """As roff prints it: dashes that can be copied, no line that is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.splitlines())


def described(items: dict[str, str]) -> Iterator[str]:
    for name, what in items.items():
        yield from (".TP", f"\\fB{quoted(name)}\\fR", quoted(what))


def paragraphs(command: click.Command) -> Iterator[str]:
    for part in inspect.cleandoc(command.help or "").replace("\b\n", "").split("\n\n"):
        yield from (".PP", quoted(part))


def options(command: click.Command, context: click.Context) -> dict[str, str]:
    records = [parameter.get_help_record(context) for parameter in command.params]
    return {name: what for name, what in filter(None, records) if what}


def commands(group: click.Group, context: click.Context, words: tuple[str, ...]) -> Iterator[str]:
    """One subsection for each command, those in groups after their group."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield from commands(command, inner, (*words, name))
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        yield from (f".SS {' '.join((*words, name))}", f".B {' '.join(('pubd', *words, name))}", quoted(usage))
        yield from paragraphs(command)
        yield from described(options(command, inner))


def page() -> Iterator[str]:
    """The lines of the page; no date in it, so that it is the same whenever it is made."""
    context = click.Context(main, info_name="pubd")
    yield from (f'.TH PUBD 1 "" "pubd {__version__}"', ".SH NAME")
    yield "pubd \\- publish to RabbitMQ and answer for every message"
    yield from (".SH SYNOPSIS", ".B pubd", quoted("COMMAND [OPTION]..."), ".br")
    yield from (".B twistd", quoted("--nodaemon --pidfile= pubd --config=pubd.toml"))
    yield from (".SH DESCRIPTION", "The daemon is started by systemd as pubd.service, or by hand as")
    yield from ("the second line says. The command", ".B pubd", "hands it messages and looks after it.")
    yield ".SH COMMANDS"
    yield from commands(main, context, ())
    yield ".SH EXIT STATUS"
    yield from described(CODES)
    yield ".SH FILES"
    yield from described(FILES)
    yield from (".SH SEE ALSO", "systemctl(1), journalctl(1), rabbitmqctl(8)")


if __name__ == "__main__":
    sys.stdout.write("\n".join(page()) + "\n")
