"""Key and Table: what the configuration knows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pubd.config.kinds import Kind


@attrs.frozen(kw_only=True)
class Key:
    """One key. ``default`` is a TOML value, None where there is none; ``absent`` says what that means.

    ``example`` is TOML. A ``secret`` may come from a file named by ``NAME_file``. ``keys`` are those of an inline
    table. ``restart`` says why a change takes a restart; empty, and that is usual: a reload applies it. ``shown``:
    whether its value may stand in a log.
    """

    name: str
    kind: Kind
    default: object = None
    absent: str = "none"
    required: bool = False
    why: str
    example: str
    secret: bool = False
    restart: str = ""
    shown: bool = True
    keys: tuple[Key, ...] = ()


@attrs.frozen(kw_only=True)
class Table:
    """A table, or with ``many`` an array of tables. ``why`` is one sentence."""

    name: str
    many: bool = False
    why: str
    keys: tuple[Key, ...]

    @property
    def heading(self) -> str:
        """As it stands in the file."""
        return f"[[{self.name}]]" if self.many else f"[{self.name}]"
