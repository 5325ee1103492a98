"""The table [log]."""

from __future__ import annotations

from typing import Any

from pubd.config.key import Key, Table
from pubd.config.kinds import Kind, choice
from pubd.config.problems import Unfit, kind_of
from pubd.operate.log_options import Format, Level

_LEVEL = choice(Level)


def _levels(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(f'must be a table such as {{ "pubd.amqp" = "debug" }}, not {kind_of(value)}')
    found = {}
    for namespace, level in value.items():
        if not all(part.isidentifier() for part in namespace.split(".")):
            # Unquoted, pubd.amqp is a table within a table.
            raise Unfit('is no namespace; write one such as "pubd.amqp", in quotes', f"[{namespace!r}]")
        if isinstance(level, dict):
            raise Unfit(f'has a dot outside of quotes; write "{namespace}.{next(iter(level), "")}"', f"[{namespace!r}]")
        try:
            found[namespace] = _LEVEL.read(level)
        except Unfit as unfit:
            raise Unfit(unfit.sentence, f"[{namespace!r}]") from None
    return found


def _pairs(text: str) -> object:
    """As the environment has it: ``pubd.amqp=debug pubd.spool=warn``."""
    pairs = [pair.partition("=") for pair in text.replace(",", " ").split()]
    return {namespace: level for namespace, _, level in pairs}


LOG = Table(
    name="log",
    why="What is logged, and how (docs: Logs).",
    keys=(
        Key(
            name="format",
            kind=choice(Format),
            default="auto",
            why="auto: lines for people on a terminal, fields for systemd's journal, JSON lines elsewhere.",
            example='format = "json"',
        ),
        Key(
            name="level",
            kind=_LEVEL,
            default="info",
            why="What is less important is not logged. At info nothing is logged for each message.",
            example='level = "warn"',
        ),
        Key(
            name="levels",
            kind=Kind("table of levels", _levels, _pairs),
            default={},
            why="Other levels for some namespaces (the modules of pubd) and what is below them.",
            example='levels = { "pubd.amqp" = "debug" }',
        ),
    ),
)
