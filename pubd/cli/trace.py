"""``pubd trace``: the life of one message as a time line, in RabbitMQ's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pubd.cli.daemon import daemon, daemon_options, path_of
from pubd.cli.names import complete_id
from pubd.cli.screen import Screen, json_line, output, wrapped
from pubd.wording import SETTLED, exchange, is_held, moment, plain, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a delivery that was not confirmed means, beside what RabbitMQ said.
_MEANING = {
    "lost": "the channel or connection ended before an answer; RabbitMQ may have it",
    "nacked": "RabbitMQ did not take it over",
    "returned": "RabbitMQ found no queue for it",
    "poison": "RabbitMQ closed the channel because of it",
}

#: Decisions of operators as they happened.
_DONE = {
    "retry": "retried",
    "hold": "held",
    "release": "released",
    "flush": "flushed",
    "pause": "publishing paused",
    "resume": "publishing resumed",
}


@click.command()
@click.argument("id", shell_complete=complete_id)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: one event each.")
@daemon_options
def trace(id: str, as_json: bool, **options: Any) -> None:
    """Show what happened to the message ID: acceptance, each delivery that was not confirmed, what operators decided,
    and the settlement.

    Exit codes: 0 done, 1 refused or not known, 2 usage, 3 pubd is not reachable, 75 try again later.
    """
    with daemon(options) as asked, output():
        record = asked.get(path_of(id))
        events = list(events_of(record))
        if as_json:
            for event in events:
                json_line(event)
            return
        screen = Screen()
        start = moment(record["accepted_at"])
        screen.line(f"{plain(record['id'])}  for {exchange(record['exchange'])}, key {plain(record['routing_key'])!r}")
        for event in events:
            for line in _lines(event, start, screen.width):
                screen.line(line)
        if record["state"] == "parked":
            id = plain(record["id"])
            screen.line(f"let it go:   pubd release {id}" if is_held(record) else f"cause gone:  pubd retry {id}")
            screen.line(f"to drop it:  pubd discard {id} --reason TEXT")


def events_of(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """In order of time: ``{"at", "event", "detail"}``; what is now has no ``at``."""
    by = f"from {record['principal']}" if record["principal"] is not None else ""
    yield {"at": record["accepted_at"], "event": "accepted", "detail": by}
    events = [{"at": each["at"], "event": _attempt(each), "detail": _words(each)} for each in record["failures"]]
    # That it was discarded is said at the end.
    decisions = [each for each in record["decisions"] if each["verb"] != "discard"]
    events += [
        {"at": each["at"], "event": _DONE.get(each["verb"], each["verb"]), "detail": _by(each)} for each in decisions
    ]
    yield from sorted(events, key=lambda event: str(event["at"]))
    yield _last(record)


def _by(decision: dict[str, Any]) -> str:
    return f"by {decision['who']}{': ' if decision['text'] else ''}{decision['text']}"


def _attempt(failure: dict[str, Any]) -> str:
    times = f" {failure['times']} times" if failure["times"] > 1 else ""
    number = f"attempt {failure['number']} " if failure["number"] else ""
    return f"{number}{failure['outcome']}{times}"


def _words(failure: dict[str, Any]) -> str:
    code = f"{failure['code']} " if failure["code"] is not None else ""
    said = f"{code}{failure['text']}" if failure["text"] else _MEANING.get(failure["outcome"], "")
    latest = "the last one: " if failure["times"] > 1 else ""
    return "; ".join(filter(None, (f"{latest}{said}" if said else "", _via(failure))))


def _via(delivery: dict[str, Any]) -> str:
    if delivery["node"] is None:
        return ""
    return f"{delivery['node']} channel {delivery['channel']} tag {delivery['tag']}"


def _last(record: dict[str, Any]) -> dict[str, Any]:
    """How it ended, or where it stands."""
    state, why = record["state"], reason(record["reason"])
    if state in SETTLED:
        discard = next((each for each in record["decisions"] if each["verb"] == "discard"), None)
        if state == "discarded" and discard is not None:
            return {"at": record["settled_at"], "event": state, "detail": _by(discard)}
        detail = "; ".join(filter(None, (why, _via(record))))
        return {"at": record["settled_at"], "event": state, "detail": detail}
    if record["in_flight"]:
        return {"at": None, "event": "in flight", "detail": "published; RabbitMQ has not answered yet"}
    if state == "parked":
        return {"at": None, "event": "parked", "detail": why}
    if state == "deferred":
        due = f"will be published at {record['due']}" if record["due"] is not None else ""
        return {"at": None, "event": "deferred", "detail": "; ".join(filter(None, (due, why)))}
    return {"at": None, "event": state, "detail": why or "waits for its turn; 'pubd status' says what its lane does"}


def _lines(event: dict[str, Any], start: float, width: int) -> Iterator[str]:
    if event["at"] is None:
        when = f"{'now':<24} {'':>10}"
    else:
        when = f"{plain(event['at']):<24} {_after(moment(event['at']) - start):>10}"
    head = f"{when}  {plain(event['event'])}"
    if not event["detail"]:
        yield head
        return
    if len(head) + 2 + len(event["detail"]) <= width:
        yield f"{head}: {plain(event['detail'])}"
        return
    yield head
    yield from wrapped(event["detail"], width=width, first=" " * 12, rest=" " * 12)


def _after(seconds: float) -> str:
    """Since acceptance; a clock may have been set back in between."""
    if seconds < 60:
        return f"{seconds:+.3f}s"
    if seconds < 3600:
        return f"+{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"+{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
