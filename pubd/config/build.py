"""Building: rows become values, and what only fits together is checked."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import TYPE_CHECKING, Any

import attrs

from pubd.amqp.lane import LaneOptions
from pubd.amqp.topology import Binding, Exchange, Queue, Topology
from pubd.config.problems import near, shown
from pubd.config.values import AccessConfig, BrokerConfig, DeliveryConfig, SpoolConfig
from pubd.errors import InvalidMessage, InvalidOption
from pubd.intake.endpoint import refusal
from pubd.intake.options import DirectoryOptions, HttpOptions, LinesOptions
from pubd.intake.wire import decode_object
from pubd.operate.log_options import LogOptions
from pubd.operate.tracing_options import TracingOptions
from pubd.policy import Policy
from pubd.retry import Backoff
from pubd.schedule import Cron, Every, Schedule
from pubd.spool.base import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pubd.config.read import Reading, Row

_SETTLEMENT = ("on_return", "on_nack", "max_attempts", "lifetime", "heal", "heal_interval", "park_to")
#: RabbitMQ's own exchanges, there from the start.
_PREDECLARED = "amq."
#: What the extra pubd[otel] brings.
_OTLP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def broker(row: Row) -> BrokerConfig:
    """[broker], with the heartbeat in each URL that names none."""
    values = dict(row.values)
    heartbeat = values.pop("heartbeat", None)
    urls = values.pop("urls", ())
    return BrokerConfig(
        urls=tuple(attrs.evolve(url, heartbeat=heartbeat) if url.heartbeat is None else url for url in urls), **values
    )


def spool(row: Row) -> SpoolConfig:
    """[spool]; ``min_free`` is a matter of disks."""
    values = row.values
    url = values.get("url", "memory:")
    path = None if url == "memory:" else pathlib.Path(url.removeprefix("sqlite:///"))
    limits = Limits(
        max_bytes=values.get("max_bytes"),
        max_rows=values.get("max_messages"),
        min_free=None if path is None else values.get("min_free"),
    )
    return SpoolConfig(url=url, path=path, limits=limits, retain=values.get("retain", 3600.0))


def delivery(reading: Reading, row: Row) -> DeliveryConfig | None:
    """[delivery], or None where it has a problem."""
    values = row.values
    backoff = _backoff(reading, row, Backoff(first=1.0, factor=2.0, max=300.0, jitter=1.0))
    if not row.sound or backoff is None:
        return None
    return DeliveryConfig(
        lanes=LaneOptions(
            window=values["window"], window_bytes=values["window_bytes"], confirm_timeout=values["confirm_timeout"]
        ),
        mandatory=values["mandatory"],
        persistent=values["persistent"],
        policy=Policy(backoff=backoff, **{name: values[name] for name in _SETTLEMENT}),
        drain_timeout=values["drain_timeout"],
        expiration_counts_spool_time=values["expiration_counts_spool_time"],
    )


def policies(reading: Reading, rows: Iterable[Row], default: Policy) -> tuple[Policy, ...]:
    """The [[policy]] rows, in their order."""
    made: list[Policy] = []
    for row in rows:
        if any(each.exchange == "*" and each.routing_key == "#" for each in made):
            reading.problem(row.path, "is never used: one before it is for every message", suspicion=True)
        if (one := _policy(reading, row, default)) is not None:
            made.append(one)
    return tuple(made)


def _policy(reading: Reading, row: Row, default: Policy) -> Policy | None:
    """Keys that do not stand in it are as in [delivery]."""
    values = row.values
    backoff = _backoff(reading, row, default.backoff)
    park_to = values.get("park_to")
    if park_to and values.get("exchange") == park_to:
        reading.problem(
            (*row.path, "park_to"), "is the exchange that this policy is for; name another exchange", "park_to"
        )
    if not row.sound or backoff is None:
        return None
    changes = {name: values[name] for name in _SETTLEMENT if name in row.given}
    return attrs.evolve(
        default, exchange=values["exchange"], routing_key=values["routing_key"], backoff=backoff, **changes
    )


def _backoff(reading: Reading, row: Row, default: Backoff) -> Backoff | None:
    given = {name: value for name, value in row.values.get("backoff", {}).items() if value is not None}
    first, longest = given.get("first", default.first), given.get("max", default.max)
    if first > longest:
        if row.sound or {"first", "max"} & set(given):
            reading.problem(
                (*row.path, "backoff"),
                f"first ({first:g} s) is longer than max ({longest:g} s); raise max or lower first",
                "backoff",
            )
        return None
    return attrs.evolve(default, **given)


def topology(reading: Reading, rows: Mapping[str, Sequence[Row]]) -> Topology:
    """Everything to declare. A name that is declared twice is a mistake; one that is not declared may exist."""
    exchanges = _each(reading, rows["exchange"], lambda values: Exchange(**_present(values)))
    queues = _each(reading, rows["queue"], lambda values: Queue(**_present(values)))
    bindings = _each(reading, rows["binding"], lambda values: Binding(**_present(values)))
    for table in ("exchange", "queue", "schedule"):
        _check_twice(reading, rows[table])
    for row in rows["binding"]:
        for key, kind in (("exchange", "exchange"), ("queue", "queue"), ("destination_exchange", "exchange")):
            _check_declared(reading, row, key, rows[kind])
    for row in rows["schedule"]:
        _check_declared(reading, row, "exchange", rows["exchange"])
    return Topology(exchanges=exchanges, queues=queues, bindings=bindings)


def schedules(reading: Reading, rows: Iterable[Row]) -> tuple[Schedule, ...]:
    """The [[schedule]] rows."""
    return tuple(made for row in rows if (made := _schedule(reading, row)) is not None)


def _schedule(reading: Reading, row: Row) -> Schedule | None:
    values = dict(row.values)
    every, cron, timezone = (values.pop(name, None) for name in ("every", "cron", "timezone"))
    path = row.path
    if every is not None and cron is not None:
        reading.problem((*path, "cron"), "is given together with every; keep one of them", "cron")
        return None
    if timezone is not None and cron is None and row.sound:
        reading.problem((*path, "timezone"), "is about cron; remove it, or give cron instead of every", "timezone")
    if every is None and cron is None:
        if row.sound:
            reading.problem(path, 'has no time to run at; write every = "1m" or cron = "*/5 * * * *"')
        return None
    try:
        when = Every(every) if every is not None else Cron(cron, timezone or "UTC")
    except InvalidOption as error:
        key, _, sentence = str(error).partition(": ")
        reading.problem((*path, key), sentence, key)
        return None
    if not row.sound:
        return None
    made: Schedule | None = _made(reading, row, lambda: _checked(Schedule(when=when, **_present(values))))
    return made


def _checked(schedule: Schedule) -> Schedule:
    schedule.message(now=0.0, seq=1, hostname="localhost")
    return schedule


def http(reading: Reading, row: Row, access: AccessConfig | None) -> HttpOptions | None:
    """[http], or None where it listens nowhere."""
    if not _listens(reading, row, access):
        return None
    options = HttpOptions(**row.values)
    _room(reading, row, "max_body", options.max_body, options.max_unanswered)
    return options


def lines(reading: Reading, row: Row, access: AccessConfig | None) -> LinesOptions | None:
    """[lines], or None where it listens nowhere."""
    if not _listens(reading, row, access):
        return None
    options = LinesOptions(**row.values)
    _room(reading, row, "max_line", options.max_line, options.max_unanswered)
    return options


def _room(reading: Reading, row: Row, name: str, largest: int, max_unanswered: int) -> None:
    """For one that is being read, and one that waits for its answer."""
    if max_unanswered < 2 * largest:
        reading.problem(
            (*row.path, "max_unanswered"),
            f"must be at least twice {name}, which is {largest} bytes; raise it or lower {name}",
            "max_unanswered",
        )


def log(row: Row) -> LogOptions:
    """[log]."""
    return LogOptions(**row.values)


def tracing(reading: Reading, row: Row) -> TracingOptions | None:
    """[tracing], or None where it has no endpoint."""
    values = _present(row.values)
    if not row.sound or "endpoint" not in values:
        return None
    if not _is_installed(_OTLP):
        reading.problem(
            (*row.path, "endpoint"),
            "takes OpenTelemetry, which is not installed; install pubd[otel], or remove the table",
            "endpoint",
        )
        return None
    return TracingOptions(**values)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        # One of the packages above it.
        return False


def _listens(reading: Reading, row: Row, access: AccessConfig | None) -> bool:
    """Whether it listens at all; where everybody could come, that is a problem."""
    listen = row.values.get("listen")
    if not row.sound or not listen:
        return False
    # Who comes from elsewhere is never anonymous.
    authenticated = access is None or bool(access.principals)
    for index, text in enumerate(listen):
        if why := refusal(text, authenticated=authenticated):
            reading.problem((*row.path, "listen"), why, f"listen[{index}]")
    return True


def directory(reading: Reading, row: Row, access: AccessConfig | None) -> DirectoryOptions | None:
    """[directory], or None where it has no path."""
    values = _present(row.values)
    if not row.sound or "path" not in values:
        if row.sound and row.given:
            reading.problem(row.path, 'needs a path; write path = "/var/spool/pubd"')
        return None
    options = DirectoryOptions(**values)
    names = [principal.name for principal in access.principals] if access is not None else []
    if access is not None and options.principal is not None and options.principal not in names:
        reading.problem(
            (*row.path, "principal"), f"there is no [[principal]] of that name; {_named(names)}", "principal"
        )
    try:
        route = {"exchange": options.exchange or "", "routing_key": options.routing_key}
        decode_object({**route, **options.properties})
    except InvalidMessage as error:
        key = error.field if error.field in ("exchange", "routing_key") else f"properties.{error.field}"
        reading.problem((*row.path, key.partition(".")[0]), error.problem, key)
        return None
    return options


def _named(names: Sequence[str]) -> str:
    return f"there are {', '.join(names)}" if names else "write one, or leave the key out"


def _each(reading: Reading, rows: Iterable[Row], make: Any) -> tuple[Any, ...]:
    made = [_made(reading, row, lambda row=row: make(row.values)) for row in rows if row.sound]
    return tuple(each for each in made if each is not None)


def _made(reading: Reading, row: Row, make: Any) -> Any:
    """What ``make`` gives; where the value refuses, its sentence is the problem."""
    try:
        return make()
    except InvalidMessage as error:
        name, bracket, rest = error.field.partition("[")
        key = {"headers": "arguments"}.get(name, name) if row.table.name != "schedule" else name
        reading.problem((*row.path, key), error.problem, key + bracket + rest)
    except InvalidOption as error:
        reading.problem(row.path, str(error))
    return None


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_twice(reading: Reading, rows: Sequence[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        name = row.values.get("name")
        if name in seen:
            reading.problem((*row.path, "name"), f"{shown(name)} is taken by one before; give another name", "name")
        if isinstance(name, str):
            seen.add(name)


def _check_declared(reading: Reading, row: Row, key: str, declared: Sequence[Row]) -> None:
    """Exchanges and queues may be declared by others; but a name much like a declared one is suspicious."""
    name = row.values.get(key)
    names = [each.values["name"] for each in declared if "name" in each.values]
    if not name or name in names or name.startswith(_PREDECLARED):
        return
    if meant := near(name, names):
        reading.problem(
            (*row.path, key),
            f"{shown(name)} is not declared in this file; did you mean {shown(meant)}?",
            key,
            suspicion=True,
        )
