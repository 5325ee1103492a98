"""Problems of a configuration, each with its place and its fix, and the error that carries all of them."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import attrs

from pubd.errors import PubdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SECRET = re.compile(r"(?<=://).+", re.DOTALL)


@attrs.frozen(kw_only=True)
class Problem:
    """One mistake. ``where`` is the file or the environment variable; line and column count from 1.

    ``table`` is written as in the file (``[delivery]``, ``[[queue]] "text"``), ``key`` with dots for nested ones.
    ``sentence`` says what is wrong and what to write instead; it never shows a password.
    """

    where: str
    line: int | None = None
    column: int | None = None
    table: str = ""
    key: str = ""
    sentence: str

    def __str__(self) -> str:
        place = self.where + "".join(f":{number}" for number in (self.line, self.column) if number is not None)
        subject = " ".join(filter(None, (self.table, self.key)))
        return ": ".join(filter(None, (place, subject, self.sentence)))


class ConfigError(PubdError):
    """The configuration cannot be used: correct every one of ``problems``, then start again (exit code 78)."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Unfit(ValueError):
    """A value that a key cannot take; the sentence says what it must be. ``within`` is the place inside the value."""

    def __init__(self, sentence: str, within: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.within = within


def near(word: str, known: Iterable[str]) -> str:
    """The one of ``known`` that was most likely meant, or nothing."""
    words = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), words, 1) or difflib.get_close_matches(
        word.lower(), words, 1
    )
    return words[found[0]] if found else ""


def hint(word: str, known: Sequence[str]) -> str:
    """``did you mean ...?``, or the list of what there is."""
    meant = near(word, known)
    return f"did you mean {meant}?" if meant else f"known are {', '.join(known)}"


def shown(value: object) -> str:
    """A value as an error may show it: short, and without what follows ``://``, which may be a password."""
    if isinstance(value, str):
        text = _SECRET.sub("...", value)
        return repr(text if len(text) <= 40 else text[:40] + "...")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:40] if isinstance(value, int | float) and abs(value) < 1e30 else kind_of(value)


def kind_of(value: object) -> str:
    """What TOML calls the type of ``value``."""
    kinds = {
        bool: "true or false",
        str: "a string",
        int: "a number",
        float: "a number",
        dict: "a table",
        list: "an array",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")
