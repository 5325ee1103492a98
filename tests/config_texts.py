"""A pubd.toml with everything in it, and what is said of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pubd.config import Config, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pubd.config import Problem

PASSWORD = "s3cr3t"
FULL = f"""\
[broker]
urls = ["amqp://user:{PASSWORD}@one/%2F", "amqps://user:{PASSWORD}@two/shop?heartbeat=5"]
heartbeat = "1m"
on_channel_close = "shutdown"
name = "shop"

[spool]
url = "sqlite:////var/lib/pubd/pubd.db"
max_bytes = "10MB"
max_messages = 1000
min_free = 0
retain = "1h30m"

[delivery]
window = 100
window_bytes = "1MiB"
confirm_timeout = 5
mandatory = false
persistent = false
on_return = "retry"
on_nack = "park"
max_attempts = 3
backoff = {{ first = "100ms", max = "1m" }}
lifetime = "1d"
drain_timeout = 0
heal = true
park_to = "parked"
expiration_counts_spool_time = true

[[policy]]
exchange = "metrics*"
on_return = "drop"
lifetime = "unlimited"
park_to = ""
backoff = {{ factor = 3 }}

[[exchange]]
name = "message"
type = "topic"

[[exchange]]
name = "hash"
type = "x-consistent-hash"
passive = true

[[queue]]
name = "text"
arguments = {{ x-queue-type = "quorum" }}

[[binding]]
exchange = "message"
queue = "text"
routing_key = "example.text"

[[schedule]]
name = "heartbeat"
every = "1s"
ttl = "10s"
exchange = "message"
routing_key = "example.text"
body = "The current epoch value is {{epoch}}"

[[schedule]]
name = "night"
cron = "30 2 * * *"
timezone = "Europe/Berlin"
missed = "once"
exchange = "message"
persistent = true
headers = {{ a = 1 }}
"""


def problems(text: str, environ: Mapping[str, str] | None = None, path: Path = Path("pubd.toml")) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        Config.parse(text, environ or {}, path)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return list(caught.value.problems)


def problem(text: str, environ: Mapping[str, str] | None = None) -> str:
    (only,) = problems(text, environ)
    return str(only)
