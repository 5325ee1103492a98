"""Numbers, moments and reasons as an operator reads them, in a terminal and on a page.

Nothing that comes out of here moves a cursor, or turns the order of what is around it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

#: States in which pubd answers for a message no more, and has its body no more.
SETTLED = ("confirmed", "expired", "discarded")
#: A command in a sentence, in quotes.
COMMAND = re.compile(r"'(?:pubd|rabbitmq[a-z-]*|df|dmesg|systemctl|timedatectl)( [^']*)?'")
_BY_PERSON = ("discarded by an operator", "held by an operator")
_HELD = "held by an operator"
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def plain(text: str) -> str:
    """Without what would move a terminal's cursor."""
    # Nearly always it is, and a page has some hundred texts.
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def age(seconds: float) -> str:
    """At most four characters: ``0s``, ``59s``, ``59m``, ``47h``, ``12d``, ``3y``. What is still to come is ``0s``."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{int(seconds)}s"
    if seconds < 3600:
        return f"{int(seconds / 60)}m"
    if seconds < 48 * 3600:
        return f"{int(seconds / 3600)}h"
    days = int(seconds / 86400)
    return f"{days}d" if days < 730 else f"{min(days // 365, 999)}y"


def octets(count: int) -> str:
    """``17 B``, ``1.2 MiB``."""
    if count < 1024:
        return f"{count} B"
    number = float(count)
    for unit in _UNITS:
        number /= 1024
        if number < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{number:,.1f} {unit}"


def messages(count: int) -> str:
    """``1 message``, ``41,022 messages``."""
    return f"{count:,} message{'' if count == 1 else 's'}"


def moment(text: str) -> float:
    """Epoch seconds of a moment as pubd writes it (RFC 3339). Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()


def since(text: str | None, now: float) -> str:
    """The age of a moment; ``-`` where there is none."""
    return "-" if text is None else age(now - moment(text))


def exchange(name: str) -> str:
    """The default exchange, whose name is empty, as the HTTP interface calls it."""
    return plain(name) or "amq.default"


def reason(found: dict[str, Any] | None) -> str:
    """``returned: 312 NO_ROUTE``: the cause, and RabbitMQ's own words."""
    if found is None:
        return ""
    code = f"{found['code']} " if found["code"] is not None else ""
    return plain(f"{found['cause']}: {code}{found['text']}")


def short_reason(found: dict[str, Any] | None) -> str:
    """The same for a column: RabbitMQ's or the operator's words without the cause, where they gave any."""
    if found is not None and found["code"] is not None:
        return plain(f"{found['code']} {found['text']}")
    if found is not None and found["cause"] in _BY_PERSON and found["text"]:
        return plain(found["text"])
    return reason(found)


def is_held(record: dict[str, Any]) -> bool:
    """Whether an operator holds it: it is parked, and not for RabbitMQ's reasons."""
    return record["state"] == "parked" and record["reason"] is not None and record["reason"]["cause"] == _HELD


def state(record: dict[str, Any]) -> str:
    """The state, and ``in flight`` for what is on its way to RabbitMQ."""
    return "in flight" if record["in_flight"] else plain(record["state"])


def why(record: dict[str, Any], now: float) -> str:
    """Why the message is in its state, for a column."""
    given = short_reason(record["reason"])
    if record["state"] == "deferred" and record["due"] is not None:
        left = moment(record["due"]) - now
        due = f"due in {age(left)}" if left >= 1 else "due"
        return f"{due}; {given}" if given else due
    return given
