"""``pubd.toml``: one frozen Config, or every problem at once."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

import attrs

from pubd.config import build, principals
from pubd.config.keys import OnChannelClose
from pubd.config.problems import ConfigError, Problem
from pubd.config.read import Reading
from pubd.config.values import AccessConfig, BrokerConfig, DeliveryConfig, SpoolConfig, Values
from pubd.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pubd.config.read import Row

__all__ = [
    "AccessConfig",
    "BrokerConfig",
    "Config",
    "ConfigError",
    "DeliveryConfig",
    "OnChannelClose",
    "Problem",
    "SpoolConfig",
]


@attrs.frozen(kw_only=True)
class Config(Values):
    """A configuration that can be used. ``hints`` are suspicions about it, to be shown and not to stop for."""

    hints: tuple[Problem, ...] = ()
    rows: Mapping[str, Sequence[Row]] = attrs.field(factory=dict, repr=False, eq=False)
    """What each key holds, by table, for telling what a new configuration changes. Passwords are in it."""

    @classmethod
    def load(cls, path: str | pathlib.Path, environ: Mapping[str, str]) -> Config:
        """Read a file. ``environ`` are the environment variables. Raises :class:`ConfigError`."""
        path = pathlib.Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise ConfigError([Problem(where=str(path), sentence=f"cannot be read: {error.strerror}")]) from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ConfigError([Problem(where=str(path), line=line, sentence="is not UTF-8; save it as such")]) from None
        except ValueError:
            raise ConfigError([Problem(where=repr(str(path)), sentence="is not the path of a file")]) from None
        return cls.parse(text, environ, path)

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str], path: str | pathlib.Path = "pubd.toml") -> Config:
        """Read TOML; ``path`` is named in errors, and relative paths count from its directory.

        What the environment says (``PUBD_TABLE_KEY``) goes before what the file says. Raises :class:`ConfigError` with
        every problem of both.
        """
        path = pathlib.Path(path)
        # Absolute: twistd may change its directory afterwards, and a reload is to mean the same files.
        reading = Reading(text, environ, str(path), pathlib.Path(os.path.abspath(path)).parent)
        rows = reading.rows()
        delivery = build.delivery(reading, rows["delivery"][0])
        default = delivery.policy if delivery is not None else Policy()
        access = principals.access(reading, rows["access"][0], rows["principal"])
        made: dict[str, Any] = {
            "broker": build.broker(rows["broker"][0]),
            "spool": build.spool(rows["spool"][0]),
            "delivery": delivery,
            "policies": build.policies(reading, rows["policy"], default),
            "topology": build.topology(reading, rows),
            "schedules": build.schedules(reading, rows["schedule"]),
            "access": access,
            "http": build.http(reading, rows["http"][0], access),
            "lines": build.lines(reading, rows["lines"][0], access),
            "directory": build.directory(reading, rows["directory"][0], access),
            "log": build.log(rows["log"][0]),
            "tracing": build.tracing(reading, rows["tracing"][0]),
        }
        if reading.problems:
            # The environment's come last, those of the file in its order.
            raise ConfigError(sorted(reading.problems, key=lambda each: (each.where != str(path), each.line or 0)))
        return cls(**made, hints=tuple(reading.hints), rows=rows)
