"""What a new configuration changes: pure, two configurations in, a list of changes out. No secret is in it."""

from __future__ import annotations

import enum
import json
import pathlib
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import attrs

from pubd.access import Grant
from pubd.amqp.url import BrokerUrl
from pubd.config.keys import TABLES
from pubd.config.problems import Problem
from pubd.schedule import Template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pubd.config import Config
    from pubd.config.key import Key, Table
    from pubd.config.read import Row

#: Characters of a value in a log line.
LONGEST = 200
#: What tells the rows of an array of tables apart where they have no name of their own.
_IDENTITY = {"binding": ("exchange", "queue", "destination_exchange", "routing_key")}
_SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


@attrs.frozen(kw_only=True)
class Change:
    """One key, or one row that came or went (then ``key`` is empty). ``old`` and ``new`` are as in the file.

    ``restart`` says why it cannot be changed while pubd runs; empty: it can.
    """

    table: str
    key: str = ""
    old: str | None = None
    new: str | None = None
    restart: str = ""

    def __str__(self) -> str:
        if not self.key:
            return f"{self.table} is {'new' if self.old is None else 'gone'}"
        if self.old == self.new:
            return f"{self.table} {self.key}: changed, not shown"
        return f"{self.table} {self.key}: {self.old} -> {self.new}"


def changes(old: Config, new: Config) -> tuple[Change, ...]:
    """In the order of the tables in the reference; nothing where both mean the same."""
    return tuple(_changes(old, new))


def refusals(found: Sequence[Change], where: str) -> tuple[Problem, ...]:
    """Those that take a restart, as problems of the file ``where``."""
    return tuple(
        Problem(
            where=where,
            table=change.table,
            key=change.key,
            sentence=f"cannot change from {change.old} to {change.new} while pubd runs, because {change.restart}; "
            "restart pubd for that, or put the old value back",
        )
        for change in found
        if change.restart
    )


def _changes(old: Config, new: Config) -> Iterator[Change]:
    for table in TABLES:
        before, after = old.rows.get(table.name, ()), new.rows.get(table.name, ())
        if not table.many:
            for one, other in zip_longest(before, after):
                yield from _row(table.heading, table, one, other)
        elif any(key.name == "name" for key in table.keys):
            yield from _named(table, _by_name(before), _by_name(after))
        elif table.name in _IDENTITY:
            yield from _named(table, _by_identity(table, before), _by_identity(table, after))
        else:
            # Their order counts.
            yield from _named(table, _by_number(before), _by_number(after))
    yield from _tokens(old, new)


def _by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {json.dumps(row.values["name"]): row for row in rows}


def _by_identity(table: Table, rows: Sequence[Row]) -> dict[str, Row]:
    def identity(row: Row) -> str:
        return ", ".join(f"{name} = {_text(row.values[name])}" for name in _IDENTITY[table.name] if row.values[name])

    return {identity(row): row for row in rows}


def _by_number(rows: Sequence[Row]) -> dict[str, Row]:
    return {f"number {number}": row for number, row in enumerate(rows, 1)}


def _named(table: Table, before: Mapping[str, Row], after: Mapping[str, Row]) -> Iterator[Change]:
    for name, row in before.items():
        heading = f"{table.heading} {name}"
        if name not in after:
            yield Change(table=heading, old="there")
        else:
            yield from _row(heading, table, row, after[name])
    for name in after:
        if name not in before:
            yield Change(table=f"{table.heading} {name}", new="there")


def _row(heading: str, table: Table, before: Row | None, after: Row | None) -> Iterator[Change]:
    if before is not None and after is not None:
        yield from _keys(heading, table.keys, before.values, after.values, "")


def _keys(
    heading: str, keys: Sequence[Key], before: Mapping[str, Any], after: Mapping[str, Any], prefix: str
) -> Iterator[Change]:
    for key in keys:
        old, new = before.get(key.name), after.get(key.name)
        name = f"{prefix}{key.name}"
        if key.keys:
            yield from _keys(heading, key.keys, old or {}, new or {}, f"{name}.")
        elif old != new:
            yield Change(table=heading, key=name, old=_value(key, old), new=_value(key, new), restart=key.restart)


def _tokens(old: Config, new: Config) -> Iterator[Change]:
    """What changed in the file of tokens: the file itself may have the same name as before."""
    own = {row.values["name"]: row.values.get("tokens") for row in new.rows.get("principal", ())}
    former = {row.values["name"]: row.values.get("tokens") for row in old.rows.get("principal", ())}
    before = {each.name: each.tokens for each in old.access.principals}
    for principal in new.access.principals:
        name = principal.name
        if name in before and set(before[name]) != set(principal.tokens) and own.get(name) == former.get(name):
            yield Change(table=f'[[principal]] "{name}"', key="tokens in tokens_file", old="...", new="...")


def _value(key: Key, value: object) -> str:
    """As it stands in the file, or how much of it there is where it must not be shown."""
    if value is None:
        return "unlimited" if "unlimited" in key.kind.name else key.absent
    if not key.shown or (key.secret and isinstance(value, dict)):
        return f"{len(value)} of them" if isinstance(value, tuple | list) else "..."
    if isinstance(value, bool):
        return _text(value)
    if isinstance(value, int | float):
        if key.kind.name.startswith("duration"):
            return f'"{value:g}s"'
        if key.kind.name.startswith("size"):
            return _size(int(value))
    text = _text(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _size(value: int) -> str:
    return next((f'"{value // unit}{name}"' for name, unit in _SIZES if value and value % unit == 0), str(value))


def _text(value: object) -> str:
    match value:
        case enum.Enum():
            return json.dumps(value.value)
        case BrokerUrl() | pathlib.PurePath():
            # A URL without its password and parameters.
            return json.dumps(str(value))
        case Template():
            return json.dumps(value.text)
        case Grant():
            return f"{{ exchange = {json.dumps(value.exchange)}, routing_key = {json.dumps(value.routing_key)} }}"
        case tuple() | list():
            return f"[{', '.join(map(_text, value))}]"
        case dict():
            return f"{{ {', '.join(f'{json.dumps(name)} = {_text(each)}' for name, each in value.items())} }}"
        case float():
            return f"{value:g}"
        case bool() | int() | str():
            return json.dumps(value)
        case _:
            return str(value)
