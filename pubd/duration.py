"""Durations as people write them: ``30s``, ``5m``, ``1h30m``; in pubd.toml and in messages alike."""

from __future__ import annotations

import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
#: Longest duration in seconds (31 years): what is beyond was not meant.
LONGEST = 1e9

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
_PLAIN = re.compile(_NUMBER)
_PART = re.compile(rf"({_NUMBER})\s*([a-z]+)\s*")
#: Nobody writes a longer one; longer text is not even looked at.
_MOST_TEXT = 200


class NoDuration(ValueError):
    """The text is no duration. ``sentence`` says what it must be; ``unit`` is the unknown unit, where it is that."""

    def __init__(self, sentence: str, unit: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.unit = unit


def seconds(text: str) -> float:
    """The duration in seconds, 0 to :data:`LONGEST`; a number without a unit is seconds. Raises :class:`NoDuration`."""
    text = text.strip().lower() if len(text) <= _MOST_TEXT else ""
    number = float(text) if _PLAIN.fullmatch(text) else _with_units(text)
    if number > LONGEST:
        raise NoDuration('must be a duration from 0 to 11574 days, such as "30s"')
    return number


def _with_units(text: str) -> float:
    number, at = 0.0, 0
    while part := _PART.match(text, at):
        if part[2] not in UNITS:
            raise NoDuration(f"has an unknown unit; units of time are {', '.join(UNITS)}", part[2])
        number += float(part[1]) * UNITS[part[2]]
        at = part.end()
    if not at or at < len(text):
        raise NoDuration('must be a duration such as "30s", "5m" or "1h30m"')
    return number
