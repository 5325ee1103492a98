"""``pubd backup``: a copy of the spool while pubd goes on, checked before it gets its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pubd.cli.copying import copied, pieces
from pubd.cli.daemon import daemon, daemon_options
from pubd.cli.failure import USAGE, Failure
from pubd.cli.placing import check_free, check_unused, place
from pubd.cli.screen import json_line, output
from pubd.cli.source import is_terminal
from pubd.wording import messages, octets

if TYPE_CHECKING:
    from pubd.cli.daemon import Daemon
    from pubd.spool.offline import Report


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: what is in the copy.")
@daemon_options
def backup(file: Path, force: bool, as_json: bool, **options: Any) -> None:
    """Copy the spool of the running pubd to FILE (- is standard output), consistent and complete, while it goes on.

    FILE is made by this command, on this host: readable by you alone, synced, checked as 'pubd verify' does, and only
    then given its name. What comes to standard output is not checked.

    Exit codes: 0 done, 1 refused, or the spool is damaged (FILE is there all the same), 2 usage, 3 pubd is not
    reachable, or went away, 75 try again later.
    """
    with daemon(options) as asked:
        if str(file) == "-":
            if is_terminal(sys.stdout):
                raise Failure("a spool is no text: name a FILE, or redirect standard output", USAGE)
            with output():
                for piece in pieces(asked):
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            return
        check_free(file, force=force)
        check_unused(file)
        report, size = _backed_up(asked, file, force)
    if as_json:
        json_line(_object(file, report, size))
    else:
        held = report.books.held
        click.echo(
            f"{file}: {octets(size)}, {messages(held)} open in it; whole, and its books balance"
            if not report.problems
            else f"{file}: {octets(size)}, {messages(held)} open in it"
        )
    for problem in report.problems:
        click.echo(f"pubd: {problem}", err=True)
    if report.problems:
        raise Failure(
            f"the spool is damaged, and so is its copy; stop pubd, keep both, and save what is open with 'pubd export "
            f"{file}'"
        )


def _backed_up(asked: Daemon, file: Path, force: bool) -> tuple[Report, int]:
    """What is in it, and its size, once it has its name for good."""
    from pubd.errors import SpoolError
    from pubd.spool import offline

    with copied(asked, file.absolute().parent, file.name) as made:
        try:
            report = offline.verify(made)
        except SpoolError as error:
            raise Failure(f"what came is no spool ({error}); is that pubd? See --server, and try again") from None
        size = made.stat().st_size
        place(made, file, force=force)
    return report, size


def _object(file: Path, report: Report, size: int) -> dict[str, Any]:
    import attrs

    books = report.books
    return {
        "file": str(file),
        "bytes": size,
        "schema": report.schema,
        "books": attrs.asdict(books) | {"held": books.held, "difference": books.difference},
        "problems": list(report.problems),
    }
