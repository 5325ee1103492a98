"""The reference of ``pubd.toml`` as reStructuredText, for docs/config.rst; :data:`MARK` says how to write it anew."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import TYPE_CHECKING

from pubd.config.keys import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pubd.config.key import Key, Table

#: What stands before it in docs/config.rst is written by hand.
MARK = ".. The rest is written by: python -m pubd.config.reference docs/config.rst\n"


def rst() -> str:
    """Every table and key: type, default, reason, example."""
    return "\n".join(line for table in TABLES for line in _table(table))


def _table(table: Table) -> Iterator[str]:
    yield from ("", table.heading, "-" * len(table.heading), "", table.why, "")
    yield from _keys(table.keys, "")


def _keys(keys: tuple[Key, ...], prefix: str) -> Iterator[str]:
    for key in keys:
        name = f"{prefix}{key.name}"
        yield f"``{name}``"
        facts = f"*{key.kind.name}*; {_default(key)}; {'restart' if key.restart else 'reload'}."
        why = key.why.replace("*", "\\*")
        yield f"    {facts} {why}" + (f" Also as ``{name}_file``." if key.secret else "")
        yield ""
        if not prefix:
            yield from ("    .. code-block:: toml", "", f"       {key.example}", "")
        yield from _keys(key.keys, f"{name}.")


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if key.default is None:
        return f"default: {key.absent}"
    return f"default: ``{json.dumps(key.default)}``"


if __name__ == "__main__":
    page = pathlib.Path(sys.argv[1])
    page.write_text(page.read_text(encoding="utf-8").partition(MARK)[0] + MARK + rst(), encoding="utf-8")
