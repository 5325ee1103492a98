"""``pubd init``: a pubd.toml with every key in it, explained, made from the same tables that the daemon reads it by."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pubd.amqp.url import BrokerUrl
from pubd.cli.failure import REFUSED, USAGE, Failure
from pubd.config import Config, ConfigError
from pubd.config.keys import DEFAULT_URL, TABLES
from pubd.errors import InvalidOption
from pubd.wording import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pubd.config.key import Key, Table

WIDTH = 100
LISTEN = ["tcp:8672:interface=127.0.0.1"]
SPOOL = "sqlite:///pubd.db"

_HEAD = """\
# The configuration of pubd; this file was written by 'pubd init'.
#
# Lines that begin with #name are what pubd does without them: take the # away to change one. What begins with '# ' is
# explanation. Each key can be given by the environment, too: PUBD_TABLE_KEY, and secrets as key_file.
#
#     pubd check pubd.toml                  says whether this file is right
#     twistd -n pubd --config pubd.toml     starts pubd
#     pubd status                           says how it is
"""


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="pubd.toml")
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="AMQP_URL",
    help=f"The broker; several are tried in turn. [default: {DEFAULT_URL}]",
)
@click.option("--spool", default=SPOOL, show_default=True, metavar="URL", help="Where messages are kept.")
@click.option("--listen", multiple=True, metavar="ENDPOINT", help=f"Where HTTP listens. [default: {LISTEN[0]}]")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(path: Path, urls: tuple[str, ...], spool: str, listen: tuple[str, ...], force: bool) -> None:
    """Write PATH (pubd.toml), with which pubd runs as it is, and in which every key is explained.

    Exit codes: 0 written, 1 not, 2 usage.
    """
    for url in urls:
        try:
            BrokerUrl.parse(url)
        except InvalidOption as error:
            raise Failure(f"--url {error}", USAGE) from None
    text = written(
        {
            ("broker", "urls"): list(urls) or [DEFAULT_URL],
            ("spool", "url"): spool,
            ("http", "listen"): list(listen) or LISTEN,
        }
    )
    try:
        # Without the environment: that is not what is written.
        Config.parse(text, {}, path)
    except ConfigError as error:
        raise Failure(f"this would not be right, and was not written:\n{error}", USAGE) from None
    _write(path, text, force)
    name = plain(str(path))
    click.echo(f"{name} is written, for you alone to read: there may be a password in it. Next: look into it, then")
    click.echo(f"    twistd -n pubd --config {name}")


def written(given: Mapping[tuple[str, str], object]) -> str:
    """The whole file. ``given`` are the values that stand in it, by table and key; the others are comments."""
    parts = [_HEAD]
    for table in TABLES:
        parts.append("\n".join(_table(table, given)) + "\n")
    return "\n".join(parts)


def _table(table: Table, given: Mapping[tuple[str, str], object]) -> Iterator[str]:
    several = " There may be several of these." if table.many else ""
    yield from _comment(f"{table.why}{several}")
    # One of which there may be several would be one more; the others are the same with nothing in them.
    yield f"#{table.heading}" if table.many else table.heading
    for key in table.keys:
        stands = (table.name, key.name) in given
        yield from _comment(f"{key.name}: {key.why}{'' if stands else _facts(key)}")
        if stands:
            yield f"{key.name} = {_toml(given[table.name, key.name])}"
        elif key.default is not None:
            yield f"#{key.name} = {_toml(key.default)}"
        else:
            # What it is without is no value; so this is how one is written.
            yield f"#{key.example}"


def _facts(key: Key) -> str:
    if key.required:
        return " Required."
    if key.default is None:
        return f" Without it: {key.absent}. For example:"
    return ""


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def _toml(value: object) -> str:
    """TOML of texts, numbers, booleans and arrays of them: JSON is a part of it, but for surrogate pairs."""
    return json.dumps(value, ensure_ascii=False)


def _write(path: Path, text: str, force: bool) -> None:
    """All of it or nothing, readable by its owner; never over another file unless that is wanted."""
    # What is there stays whole until the new one is.
    target = path.with_name(f".{path.name}.{os.getpid()}") if force else path
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if force:
                os.replace(target, path)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise Failure(f"{plain(str(target))} is there already; name another, or write over it with --force") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no path"
        raise Failure(f"{plain(str(path))} cannot be written: {why}; name another file", REFUSED) from None
