"""On which line of a TOML file a key stands, and what is wrong with one that is not TOML.

tomllib tells values without their places, so each statement is found by asking tomllib itself: a TOML file is a
sequence of statements, and the shortest run of lines that parses is one.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import attrs

from pubd.config.problems import Problem, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]

#: Lines that one statement may have to be found; after a longer one no lines are told.
_LONGEST = 500
#: The last line of a statement of several lines has one of these. Only there it is worth asking.
_ENDS = ('"""', "'''", "]", "}")

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE_KEY = re.compile(r"\s*([A-Za-z0-9_.-]{1,60})\s*(?:=|$)")
_FIXES = (
    ("Invalid value", 'this is not a TOML value; text stands in double quotes, as in "text"'),
    ("Expected newline", 'something follows the value; put text and units in double quotes, as in "30s"'),
    ("Expected '=' after a key", "a key is followed by = and a value"),
    ("Expected ']' at the end of a table", "a table's name ends with ], as in [delivery]"),
    ("Expected ']]'", "the name of a table that may come several times ends with ]], as in [[queue]]"),
    ("Cannot overwrite", "this key is given twice; keep one of them"),
    ("Cannot declare", "this table is given twice or in two ways; put all its keys under one heading"),
    ("Cannot mutate", "this table is complete already; put all its keys in one place"),
    ("Unterminated string", "a quotation mark is missing at the end of the text"),
    ("Unescaped '\\'", "write a backslash twice, or put the text in single quotes"),
    ("Illegal character", "this character cannot stand here; is a quotation mark missing at the end of the line?"),
    ("Found invalid character", "this character cannot stand in a comment or here; remove it"),
    ("Unclosed array", "a comma or a ] is missing in the array"),
    ("Unclosed inline table", "a comma or a } is missing in the table"),
    ("Duplicate inline table key", "a key in the braces is given twice; keep one of them"),
    ("Invalid initial character for a key part", "a key is missing or stands in no quotes; { } has no line breaks"),
    ("Invalid statement", "a line begins with a key, [ or #"),
    ("Invalid date", "there is no such date or time"),
    ("Exceeds the limit", "this number has too many digits"),
)


@attrs.frozen
class Statement:
    """One statement: its first line, from 1, how many lines, and its text."""

    line: int
    count: int
    text: str


def statements(text: str) -> Iterator[Statement]:
    """The statements of ``text`` in order, up to the first one that is no TOML."""
    lines = text.replace("\r\n", "\n").split("\n")
    first = 0
    while first < len(lines):
        for end in range(first + 1, min(first + _LONGEST, len(lines)) + 1):
            if end > first + 1 and not any(mark in lines[end - 1] for mark in _ENDS):
                continue
            chunk = "\n".join(lines[first:end])
            if _parsed(chunk) is not None:
                yield Statement(first + 1, end - first, chunk)
                first = end
                break
        else:
            return


def _parsed(chunk: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(chunk)
    except (ValueError, RecursionError):
        return None


def places(text: str) -> dict[Path, int]:
    """The line of every table and key; elements of arrays of tables are numbered from 0."""
    found: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    table: Path = ()
    for statement in statements(text):
        content = _parsed(statement.text) or {}
        if statement.text.lstrip().startswith("["):
            table = _heading(content, arrays)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], statement.line)
        else:
            _note(found, table, content, statement.line)
    return found


def _heading(content: dict[str, Any], arrays: dict[Path, int]) -> Path:
    """The table that a heading opens; under an array of tables it belongs to the last element."""
    path: Path = ()
    while content:
        ((name, inner),) = content.items()
        path += (name,)
        if isinstance(inner, list):
            arrays[path] = arrays.get(path, -1) + 1
        if path in arrays:
            path += (arrays[path],)
        content = inner[0] if isinstance(inner, list) else inner
    return path


def _note(found: dict[Path, int], at: Path, content: object, line: int) -> None:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        found.setdefault((*at, key), line)
        _note(found, (*at, key), value, line)


def syntax_problem(text: str, error: Exception, where: str) -> Problem:
    """One sentence about a text that tomllib refuses, without what stands in its values."""
    if isinstance(error, RecursionError):
        return Problem(where=where, sentence="arrays or tables are nested too deeply; flatten them")
    message = str(error)
    place = _PLACE.search(message)
    line, column = (int(place[1]), int(place[2])) if place is not None and place[1] else (None, None)
    begun = _beginning(text, line)
    sentence = next((fix for start, fix in _FIXES if message.startswith(start)), None)
    if sentence is None:
        sentence = "this is not TOML; compare the line with the examples of the documentation"
    if line is not None and begun < line:
        sentence += f" (the value began on line {begun}: is a bracket or a quotation mark missing there?)"
    key = _key_of(text.split("\n")[begun - 1])
    return Problem(where=where, line=line or begun, column=column, key=key, sentence=f"not valid TOML: {sentence}")


def _beginning(text: str, line: int | None) -> int:
    """The first line of the statement that ``line`` belongs to, or (None) of the last one or the first without end."""
    begun = end = 1
    for statement in statements(text):
        end = statement.line + statement.count
        if line is not None and end > line:
            return statement.line
        if statement.text.strip():
            begun = statement.line
    return min(end, line) if line is not None else end if end <= text.count("\n") + 1 else begun


def _key_of(line: str) -> str:
    match = _BARE_KEY.match(line)
    if match is not None:
        return match[1] if "=" in line else shown(match[1]).strip("'")
    heading = re.match(r"\s*(\[{1,2}[A-Za-z0-9_.-]{1,60})", line)
    return heading[1] if heading else ""
