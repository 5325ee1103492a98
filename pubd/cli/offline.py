"""What works on a spool, of a stopped daemon or of the running one, and on the configuration."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import click

from pubd.cli.copying import copied
from pubd.cli.daemon import Broken, daemon, daemon_options
from pubd.cli.durations import Duration
from pubd.cli.failure import BROKEN_PIPE, CONFIGURATION, Failure
from pubd.cli.placing import check_free, check_no_spool, place, sync, unnamed
from pubd.cli.screen import Screen, json_line, wrapped
from pubd.config import Config, ConfigError
from pubd.errors import InvalidOption, SpoolError, SpoolInUse
from pubd.intake import wire
from pubd.intake.exported import exported_object
from pubd.spool import offline
from pubd.spool.url import check_spool_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.amqp.probe import Finding

#: Seconds without anything from the daemon.
SILENCE = 60.0


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--probe", is_flag=True, help="Look at brokers, exchanges, permissions, spool and disk, too.")
@click.option("--timeout", type=Duration(), default="10s", show_default=True, help="How long one answer may take.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: what was found.")
def check(config: Path, probe: bool, timeout: float, as_json: bool) -> None:
    """Check CONFIG (pubd.toml) and say everything that is wrong with it.

    With --probe it is looked whether each broker takes pubd's user, whether what the configuration names is there and
    may be published to, and whether the spool can be used; best by pubd's own user. No message is published, and
    nothing is declared that is not there.

    Exit codes: 0 all is well, 1 something that was looked at is not, 2 usage, 78 the configuration is wrong.
    """
    try:
        read = Config.load(config, os.environ)
    except ConfigError as error:
        raise Failure(str(error), CONFIGURATION) from None
    if as_json:
        json_line({"what": str(config), "result": "ok", "detail": "", "fix": ""})
    else:
        click.echo(f"{config} is right" if not probe else f"OK    {config}")
    if not probe:
        return
    # Twisted, pika and TLS: not for those who do not ask for it.
    from pubd.cli.probing import probed

    failed = 0

    def tell(found: Finding) -> None:
        nonlocal failed
        failed += found.result.value == "fail"
        if as_json:
            json_line(attrs.asdict(found) | {"result": found.result.value})
        else:
            _finding(found)

    probed(read, timeout=timeout, tell=tell)
    if failed:
        raise Failure(f"{failed} of these {'is' if failed == 1 else 'are'} not well; see what to do below each")


def _finding(found: Finding) -> None:
    """A line, and below it what to do."""
    screen = Screen()
    mark, colour = {"ok": ("OK", "green"), "fail": ("FAIL", "red"), "untested": ("?", "yellow")}[found.result.value]
    detail = f": {found.detail}" if found.detail else ""
    for line in wrapped(f"{found.what}{detail}", width=screen.width, first=f"{mark:<6}", rest="      "):
        screen.line(line, fg=colour)
    if found.fix:
        for line in wrapped(found.fix, width=screen.width, first="      -> ", rest="         "):
            screen.line(line, fg=colour)


def _spool_path(spool: str) -> Path:
    """A path, or a sqlite: URL."""
    try:
        return Path(check_spool_url(spool) if spool.startswith("sqlite:") else spool)
    except InvalidOption as error:
        raise Failure(str(error), 2) from None


@click.command()
@click.argument("spool", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: books, schema and problems.")
@daemon_options
def verify(spool: str | None, as_json: bool, **options: Any) -> None:
    """Check structure, checksums and books of SPOOL (its path) of a stopped daemon; without SPOOL, of the running one.

    Of the running one a copy is made, as 'pubd backup' does, into the directory for temporary files (TMPDIR) of this
    host, and checked here: publishing goes on.

    Exit codes: 0 all is well, 1 it is not, or refused, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    stopped = spool is not None
    if spool is not None:
        report = _verified(_spool_path(spool))
    else:
        with daemon(options) as asked, copied(asked, Path(tempfile.gettempdir()), "pubd-verify") as copy:
            spool = asked.get("/status")["spool"]["path"] or "SPOOL"
            report = _verified(copy, spool)
    books = report.books
    if as_json:
        shown = attrs.asdict(books) | {"held": books.held, "difference": books.difference}
        json_line({"books": shown, "schema": report.schema, "problems": list(report.problems)})
    else:
        click.echo(
            f"{books.accepted} accepted = {books.confirmed} confirmed + {books.expired} expired + "
            f"{books.discarded} discarded + {books.held} held "
            f"({books.ready} ready, {books.deferred} deferred, {books.parked} parked; {books.bytes} bytes)"
        )
    for problem in report.problems:
        click.echo(f"pubd: {problem}", err=True)
    if report.problems:
        stop = "" if stopped else "stop pubd, keep a copy of the spool, and "
        raise Failure(f"{len(report.problems)} problems; {stop}save what is open with 'pubd export {spool} -o FILE'")
    if not as_json:
        click.echo("the spool is whole and its books balance")


def _verified(path: Path, called: str | None = None) -> offline.Report:
    """``called``: the spool of which it is a copy, since the copy goes away. Raises Failure."""
    try:
        return offline.verify(path)
    except SpoolInUse as error:
        raise Failure(f"{error}; or leave SPOOL out: the running pubd is asked then") from None
    except SpoolError as error:
        raise Failure(str(error).replace(str(path), called) if called else str(error)) from None


@click.command()
@click.argument("spool", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, allow_dash=True), help="The file to write, readable by you alone."
)
@click.option("-f", "--force", is_flag=True, help="Replace that file if it is there; never a spool.")
@daemon_options
def export(spool: str | None, output: Path | None, force: bool, **options: Any) -> None:
    """Write every open message of SPOOL (its path) of a stopped daemon as NDJSON; without SPOOL, of the running one.

    Damaged ones are marked, and what cannot be read is left out. 'pubd import' hands all of it in again. The running
    pubd goes on: what RabbitMQ confirms before its turn comes is not in it, what is accepted meanwhile neither. A file
    gets its name when all is in it.

    Exit codes: 0 done, 1 refused, or some could not be read, 2 usage, 3 pubd is not reachable, or went away, 75 try
    again later.
    """
    count = damaged = 0
    partly: offline.PartlyRead | None = None
    output = None if str(output) == "-" else output
    path = _spool_path(spool) if spool is not None else None
    try:
        with _output(output, path, force) as file:
            try:
                for line, marked in _offline(path) if path is not None else _online(options, output):
                    damaged += marked
                    file.write(line + "\n")
                    count += 1
            except offline.PartlyRead as error:
                partly = error
    except SpoolInUse as error:
        raise Failure(f"{error}; or leave SPOOL out: the running pubd is asked then") from None
    except SpoolError as error:
        raise Failure(str(error)) from None
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        raise Failure(f"{output or 'stdout'} cannot be written: {error.strerror}") from None
    lost = f", {partly.missing or 'some'} could not be read" if partly else ""
    click.echo(f"{count} messages exported, {damaged} of them damaged{lost}", err=True)
    if partly:
        raise Failure(str(partly))


def _offline(path: Path) -> Iterator[tuple[str, bool]]:
    """Each line, and whether its message is damaged."""
    for each in offline.export(path):
        message = exported_object(each)
        yield wire.dumps(message), "damaged" in message


def _online(options: dict[str, Any], output: Path | None) -> Iterator[tuple[str, bool]]:
    """As it comes from the daemon."""
    rest = b""
    with daemon(options) as asked:
        try:
            for piece in asked.stream("/export", silence=SILENCE):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line.decode(), b',"damaged":true' in line and "damaged" in json.loads(line)
        except Broken as error:
            left = "what is written is not all of it" if output is None else "nothing is kept of it"
            raise Failure(f"{error.message}: {left}; try again", error.exit_code) from None


@contextmanager
def _output(file: Path | None, spool: Path | None, force: bool) -> Iterator[IO[str]]:
    """stdout, or a file that nobody else can read, for there are bodies in it; it is there when all is written.

    Raises Failure, OSError.
    """
    if file is None:
        with _stdout() as stdout:
            yield stdout
        return
    if file.exists() and not file.is_file() and not file.is_dir():
        # A pipe, or a device: there is nothing in it to lose.
        with file.open("w", encoding="utf-8") as written:
            yield written
        return
    check_no_spool(file, spool)
    check_free(file, force=force)
    with unnamed(file.absolute().parent, file.name) as (made, raw):
        text = TextIOWrapper(raw, encoding="utf-8")
        yield text
        text.flush()
        sync(raw)
        place(made, file, force=force)


@contextmanager
def _stdout() -> Iterator[IO[str]]:
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
