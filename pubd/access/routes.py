"""Routes: which exchanges and routing keys a set of patterns covers, decided once for each route."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeAlias

from pubd.policy import topic_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Whether a route (exchange, routing key) is covered.
Covers: TypeAlias = "Callable[[str, str], bool]"

#: Decisions kept for each set of patterns, of at most 1 KiB each, since both parts have at most 255 bytes. More routes
#: than these are decided anew each time, at some microseconds.
KEPT = 2048

_MATCHES: Callable[[str], bool] = re.compile("").match  # type: ignore[assignment]  # a match counts as true


def covering(patterns: Iterable[tuple[str, str]]) -> Covers:
    """Whether any of ``patterns``, pairs for exchange and routing key as in :class:`pubd.policy.Policy`, matches."""
    pairs = frozenset(patterns)
    if ("*", "#") in pairs:
        return _everything
    if not pairs:
        return _nothing
    compiled = tuple((exchange_pattern(exchange), key_pattern(key)) for exchange, key in pairs)

    def covers(exchange: str, routing_key: str) -> bool:
        return any(is_exchange(exchange) and is_key(routing_key) for is_exchange, is_key in compiled)

    return lru_cache(maxsize=KEPT)(covers)


def _everything(exchange: str, routing_key: str) -> bool:
    del exchange, routing_key
    return True


def _nothing(exchange: str, routing_key: str) -> bool:
    del exchange, routing_key
    return False


def exchange_pattern(pattern: str) -> Callable[[str], object]:
    """As ``fnmatchcase`` with the pattern compiled; fnmatch writes expressions that do not backtrack."""
    return _MATCHES if pattern == "*" else re.compile(translate(pattern)).match


def key_pattern(pattern: str) -> Callable[[str], object]:
    """As ``topic_matches``, with the usual patterns decided by one comparison."""
    words = pattern.split(".")
    if pattern == "#":
        return _MATCHES
    if "#" not in words and "*" not in words:
        return pattern.__eq__
    if words[-1] == "#" and "#" not in words[:-1] and "*" not in words[:-1]:
        return partial(_begins, ".".join(words[:-1]), ".".join(words[:-1]) + ".")
    return partial(topic_matches, pattern)


def _begins(whole: str, start: str, routing_key: str) -> bool:
    return routing_key.startswith(start) or routing_key == whole
