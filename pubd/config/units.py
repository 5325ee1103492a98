"""Durations and sizes as people write them: ``30s``, ``1h30m``, ``64MiB``. Plain numbers are seconds and bytes."""

from __future__ import annotations

import math
import re

from pubd import duration
from pubd.config.problems import Unfit, kind_of, shown

SIZES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
#: Longest duration in seconds and largest size in bytes: what is beyond was not meant.
LONGEST, LARGEST = duration.LONGEST, 1 << 60

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
_PLAIN = re.compile(_NUMBER)
_SIZE = re.compile(rf"({_NUMBER})\s*([a-z]+)")


def seconds(value: object) -> float:
    """A duration in seconds, 0 or more. Raises :class:`~pubd.config.problems.Unfit`."""
    number = _plain(value, 'a duration such as "30s", "5m" or "1h30m"', "seconds")
    if number is None:
        try:
            number = duration.seconds(str(value))
        except duration.NoDuration as error:
            if error.unit is not None:
                units = ", ".join(duration.UNITS)
                raise Unfit(f"has the unknown unit {error.unit[:20]!r}; units of time are {units}") from None
            raise Unfit(f"{error.sentence}, not {shown(value)}") from None
    if not 0 <= number <= LONGEST:
        raise Unfit(f'must be a duration from 0 to 11574 days, such as "30s", not {shown(value)}')
    return number


def octets(value: object) -> int:
    """A size in bytes, 0 or more. Raises :class:`~pubd.config.problems.Unfit`."""
    number = _plain(value, 'a size such as "64MiB" or "1GiB"', "bytes")
    if number is None:
        match = _SIZE.fullmatch(str(value).strip().lower())
        if match is None:
            raise Unfit(f'must be a size such as "64MiB" or "1GiB", not {shown(value)}')
        if match[2] not in SIZES:
            names = "B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"
            raise Unfit(f"has the unknown unit {match[2][:20]!r}; units of size are {names}")
        number = float(match[1]) * SIZES[match[2]]
    if not 0 <= number <= LARGEST:
        raise Unfit(f'must be a size from 0 bytes to 1048576TiB, such as "1GiB", not {shown(value)}')
    return int(number)


def _plain(value: object, what: str, unit: str) -> float | None:
    """A number without a unit, or None for a string with one."""
    if isinstance(value, str):
        return float(value) if _PLAIN.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"must be {what}, or a number of {unit}, not {kind_of(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Unfit(f"must be {what}, not {value}")
    # Compared before it is converted: TOML's integers have no bound in Python.
    return float(value) if abs(value) <= 10**30 else math.inf if value > 0 else -math.inf
