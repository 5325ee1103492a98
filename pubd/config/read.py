"""Reading: TOML and the environment become rows of checked values, and every problem is collected on the way."""

from __future__ import annotations

import stat
import tomllib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from pubd.config.keys import TABLES
from pubd.config.lines import Path, places, syntax_problem
from pubd.config.problems import Problem, Unfit, hint, kind_of, near, shown

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Mapping

    from pubd.config.key import Key, Table

PREFIX = "PUBD_"
#: The broker that script/run, the tests and the benchmarks take; it names one, and the configuration has its own.
_FOR_SCRIPTS = "PUBD_BROKER_URL"
_KNOWN = {table.name: table for table in TABLES}
_PLAIN = {table.name: table for table in TABLES if not table.many}
#: Credentials are short; what is longer was not meant.
_LONGEST_SECRET = 1 << 16


@attrs.frozen
class Row:
    """One table with the values of its keys; where it is not ``sound``, those with a problem are missing."""

    table: Table
    path: Path
    values: Mapping[str, Any]
    sound: bool
    given: frozenset[str]
    """The keys that stand in the file."""


class Reading:
    """One file and one environment being read. ``hints`` are suspicions, ``problems`` certain."""

    def __init__(self, text: str, environ: Mapping[str, str], where: str, base: pathlib.Path) -> None:
        self.problems: list[Problem] = []
        self.hints: list[Problem] = []
        self._text = text
        self._environ = environ
        self._where = where
        self._base = base
        """Relative paths in the file count from here."""
        self._document = self._parse()

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text)
        except (ValueError, RecursionError) as error:
            self.problems.append(syntax_problem(self._text, error, self._where))
            return {}

    @cached_property
    def _places(self) -> Mapping[Path, int]:
        return places(self._text)

    def _line(self, path: Path) -> int | None:
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path)

    def problem(self, path: Path, sentence: str, key: str = "", suspicion: bool = False) -> None:
        """Something is wrong, or suspicious, at ``path``: (table, key) or (table, number, key)."""
        problem = Problem(
            where=self._where,
            line=self._line(path),
            table=self._heading(path),
            key=key,
            sentence=sentence,
        )
        (self.hints if suspicion else self.problems).append(problem)

    def _heading(self, path: Path) -> str:
        if not path or path[0] not in _KNOWN:
            return ""
        table = _KNOWN[str(path[0])]
        if not table.many or len(path) < 2:
            return table.heading
        name = self._document[table.name][path[1]].get("name")
        return f"{table.heading} " + (shown(name) if isinstance(name, str) else f"number {int(path[1]) + 1}")

    def rows(self) -> dict[str, list[Row]]:
        """The rows of each table by its name; a plain table always has one."""
        found: dict[str, list[Row]] = {}
        for name in self._document:
            if name not in _KNOWN:
                self._unknown_table(name)
        self._check_variables()
        for table in TABLES:
            content = self._document.get(table.name)
            if table.many:
                found[table.name] = list(self._many(table, content))
            else:
                found[table.name] = [self._row(table, (table.name,), self._plain(table, content))]
        return found

    def path_of(self, row: Row, key: str) -> pathlib.Path:
        """The path that ``key`` of a plain table holds: one in the file is relative to the file's own directory."""
        path = type(self._base)(row.values[key])
        # A variable's is relative to the working directory, as for whoever set it.
        return path if self._environ.get(f"{PREFIX}{row.table.name.upper()}_{key.upper()}") else self._base / path

    def _unknown_table(self, name: str) -> None:
        value = self._document[name]
        if isinstance(value, dict | list) and near(name, list(_KNOWN)):
            sentence = f"there is no such table; did you mean {_KNOWN[near(name, list(_KNOWN))].heading}?"
        elif owners := _owners(name):
            sentence = f"stands in no table; put it below {' or '.join(owners)}"
        else:
            sentence = f"there is no such table; known are {', '.join(table.heading for table in TABLES)}"
        self.problems.append(Problem(where=self._where, line=self._line((name,)), key=shown(name), sentence=sentence))

    def _plain(self, table: Table, content: object) -> Mapping[str, Any]:
        if content is None or isinstance(content, dict):
            return content or {}
        self.problem((table.name,), f"there is one of these only; write {table.heading} and its keys below")
        return {}

    def _many(self, table: Table, content: object) -> Iterator[Row]:
        if content is None:
            return
        if isinstance(content, dict):
            self.problem((table.name,), f"there can be several of these; write {table.heading} with double brackets")
        elif not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
            self.problem((table.name,), f"must be tables, not {kind_of(content)}; write {table.heading} and keys below")
        else:
            for index, each in enumerate(content):
                yield self._row(table, (table.name, index), each)

    def _row(self, table: Table, path: Path, content: Mapping[str, Any]) -> Row:
        before = len(self.problems)
        values = self._values(table.keys, path, content, "" if table.many else f"{PREFIX}{table.name.upper()}_")
        return Row(table, path, values, len(self.problems) == before, frozenset(content))

    def _values(self, keys: tuple[Key, ...], path: Path, content: Mapping[str, Any], variables: str) -> dict[str, Any]:
        """What ``keys`` hold; with ``variables``, the environment's go first."""
        names = [name for key in keys for name in _names(key)]
        values: dict[str, Any] = {}
        for name in content:
            if name not in names:
                self._unknown_key(name, names, path)
        for key in keys:
            at = (*path, key.name)
            dotted = ".".join(str(part) for part in at[1:] if isinstance(part, str))
            if key.keys:
                inner = content.get(key.name, {})
                if not isinstance(inner, dict):
                    self.problem(at, f"must be a table, such as {key.example}, not {kind_of(inner)}", dotted)
                    inner = {}
                more = f"{variables}{key.name.upper()}_" if variables else ""
                values[key.name] = self._values(key.keys, at, inner, more)
                continue
            variable = f"{variables}{key.name.upper()}" if variables else None
            given, sound = self._from_file(key, at, dotted, content, values, variable)
            if variable and self._from_variable(key, variable, values):
                continue
            if not given and key.required:
                self.problem(path, f"is missing; write {key.example}", dotted)
            elif not given:
                values[key.name] = None if key.default is None else key.kind.read(key.default)
            elif not sound:
                values.pop(key.name, None)
        return values

    def _from_file(
        self,
        key: Key,
        path: Path,
        dotted: str,
        content: Mapping[str, Any],
        values: dict[str, Any],
        variable: str | None,
    ) -> tuple[bool, bool]:
        """Whether the file gives ``key``, and whether it could be read; ``variable`` would go before it."""
        named = f"{key.name}_file"
        value = content.get(key.name)
        if key.secret and named in content:
            path = (*path[:-1], named)
            if value is not None:
                self.problem(path, f"is given together with {key.name}; keep one of them", named)
                return True, False
            dotted = named
        elif value is None:
            return False, True
        try:
            if dotted == named:
                if variable and (self._environ.get(variable) or self._environ.get(f"{variable}_FILE")):
                    # Credentials of a service are there only while it runs; whoever looks at its file names others.
                    return True, False
                value = key.kind.from_text(self._secret(content[named], self._base))
            values[key.name] = key.kind.read(value)
        except Unfit as unfit:
            self.problem(path, unfit.sentence, dotted + unfit.within)
            return True, False
        return True, True

    def _from_variable(self, key: Key, variable: str, values: dict[str, Any]) -> bool:
        """Whether the environment gives ``key``; an empty variable does not."""
        text, source = self._environ.get(variable), variable
        if key.secret and (path := self._environ.get(f"{variable}_FILE")):
            if text:
                self._variable_problem(f"{variable}_FILE", f"is given together with {variable}; keep one of them")
                return True
            source = f"{variable}_FILE"
        elif not text:
            return False
        try:
            if source != variable:
                text = self._secret(path, None)
            values[key.name] = key.kind.read(key.kind.from_text(_utf8(text or "")))
        except Unfit as unfit:
            values.pop(key.name, None)
            self._variable_problem(source, " ".join(filter(None, (unfit.within, unfit.sentence))))
        return True

    def _secret(self, named: object, base: pathlib.Path | None) -> str:
        """The content of a file, without line breaks around it."""
        if not isinstance(named, str) or not named:
            raise Unfit(f"must be the path of a file, not {shown(named)}")
        try:
            path = type(self._base)(named) if base is None else base / named
            # A pipe or a device would stop pubd here for good.
            if not stat.S_ISREG(path.stat().st_mode):
                raise Unfit(f"{shown(named)} is no regular file; name one")
            with path.open("rb") as file:
                octets = file.read(_LONGEST_SECRET + 1)
            if len(octets) > _LONGEST_SECRET:
                raise Unfit(f"{shown(named)} has more than {_LONGEST_SECRET} bytes; it should hold this one value")
            text = octets.decode().strip()
        except OSError as error:
            raise Unfit(f"{shown(named)} cannot be read: {error.strerror}; check path and permissions") from None
        except UnicodeDecodeError:
            raise Unfit(f"{shown(named)} is not UTF-8; write it again") from None
        except Unfit:
            raise
        except ValueError:
            raise Unfit(f"{shown(named)} is no path; name a file") from None
        if not text:
            raise Unfit(f"{shown(named)} is empty; write the value into it")
        return text

    def _unknown_key(self, name: str, names: list[str], path: Path) -> None:
        owners = [owner for owner in _owners(name) if owner != _KNOWN[str(path[0])].heading]
        if not near(name, names) and owners:
            sentence = f"belongs below {' or '.join(owners)}"
        else:
            sentence = f"is not known here; {hint(name, names)}"
        self.problem((*path, name), sentence, shown(name).strip("'\""))

    # The environment

    def _check_variables(self) -> None:
        known = [name for table in _PLAIN.values() for name in _variables(f"{PREFIX}{table.name.upper()}_", table.keys)]
        for name in sorted(self._environ):
            if not name.startswith(PREFIX) or name in known or not self._environ[name]:
                continue
            if name == _FOR_SCRIPTS:
                sentence = "is not read here, but by scripts and tests; the brokers' variable is PUBD_BROKER_URLS"
                self.hints.append(Problem(where=name, sentence=sentence))
                continue
            word = name.removeprefix(PREFIX).partition("_")
            if word[0].lower() in _PLAIN:
                self._variable_problem(name, f"is not known; {hint(name, known)}")
            elif word[1] and near(word[0], list(_KNOWN)):
                tables = ", ".join(table.heading for table in _PLAIN.values())
                sentence = f"is ignored: variables are PUBD_TABLE_KEY, for the tables {tables}"
                self.hints.append(Problem(where=_printable(name), sentence=sentence))

    def _variable_problem(self, variable: str, sentence: str) -> None:
        self.problems.append(Problem(where=_printable(variable), sentence=sentence))


def _names(key: Key) -> tuple[str, ...]:
    return (key.name, f"{key.name}_file") if key.secret else (key.name,)


def _variables(prefix: str, keys: tuple[Key, ...]) -> Iterator[str]:
    for key in keys:
        if key.keys:
            yield from _variables(f"{prefix}{key.name.upper()}_", key.keys)
        else:
            yield from (f"{prefix}{name.upper()}" for name in _names(key))


def _owners(name: str) -> list[str]:
    """The tables that have a key of this name."""
    return [table.heading for table in TABLES if any(name in _names(key) for key in table.keys)]


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit("is not UTF-8") from None
    return text


def _printable(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()
