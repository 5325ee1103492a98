"""What works on the files of a stopped daemon, and on its configuration."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pubd.cli.failure import CONFIGURATION, Failure
from pubd.config import Config, ConfigError
from pubd.errors import InvalidMessage, InvalidOption, SpoolError
from pubd.intake import wire
from pubd.spool import offline
from pubd.spool.url import check_spool_url

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
def check(config: Path) -> None:
    """Check CONFIG (pubd.toml) and say everything that is wrong with it. Exit code 78 if something is."""
    try:
        Config.load(config, os.environ)
    except ConfigError as error:
        raise Failure(str(error), CONFIGURATION) from None
    click.echo(f"{config} is right")


def _spool_path(spool: str) -> Path:
    """A path, or a sqlite: URL."""
    try:
        return Path(check_spool_url(spool) if spool.startswith("sqlite:") else spool)
    except InvalidOption as error:
        raise Failure(str(error), 2) from None


@click.command()
@click.argument("spool")
def verify(spool: str) -> None:
    """Check structure, checksums and books of SPOOL (its path) of a stopped daemon. Exit code 1 if all is not well."""
    try:
        report = offline.verify(_spool_path(spool))
    except SpoolError as error:
        raise Failure(str(error)) from None
    books = report.books
    click.echo(
        f"{books.accepted} accepted = {books.confirmed} confirmed + {books.expired} expired + "
        f"{books.discarded} discarded + {books.held} held "
        f"({books.ready} ready, {books.deferred} deferred, {books.parked} parked; {books.bytes} bytes)"
    )
    for problem in report.problems:
        click.echo(f"pubd: {problem}", err=True)
    if report.problems:
        raise Failure(f"{len(report.problems)} problems; save what is open with 'pubd export {spool}'")
    click.echo("the spool is whole and its books balance")


@click.command()
@click.argument("spool")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write, readable by you alone.")
def export(spool: str, output: Path | None) -> None:
    """Write every open message of SPOOL (its path) as NDJSON, the daemon being stopped. Damaged ones are marked."""
    count = damaged = 0
    try:
        with _private(output) as file:
            for each in offline.export(_spool_path(spool)):
                message = _object(each)
                damaged += "damaged" in message
                file.write(wire.dumps(message) + "\n")
                count += 1
    except SpoolError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"{output or 'stdout'} cannot be written: {error.strerror}") from None
    click.echo(f"{count} messages exported, {damaged} of them damaged", err=True)


def _object(exported: offline.Exported) -> dict[str, Any]:
    """The message as JSON, with its state; what is damaged is marked."""
    state = {"state": exported.state.value}
    if not exported.damaged:
        try:
            return wire.encode(exported.entry) | state
        except InvalidMessage:
            pass  # Stored as it is, and never to be read: as good as damaged.
    return wire.remains(exported.entry) | state | {"damaged": True}


@contextmanager
def _private(path: Path | None) -> Iterator[IO[str]]:
    """stdout, or a file that nobody else can read: there are bodies in it."""
    if path is None:
        try:
            if isinstance(sys.stdout, TextIOWrapper):
                # JSON is UTF-8, whatever the locale.
                sys.stdout.reconfigure(encoding="utf-8")
            yield sys.stdout
            sys.stdout.flush()
        except OSError:
            # Python would try once more at its end, to write what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        yield file
