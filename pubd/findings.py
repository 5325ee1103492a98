"""What the facts of ``GET /status`` mean: is pubd healthy, and what is to be done, command by command. Pure."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

import attrs

from pubd.wording import age, exchange, messages, moment, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds after which a message that could be published should have been.
SLOW = 60.0
#: Share of a limit at which a spool is nearly full.
NEARLY = 0.9
#: Seconds for which a step of the clock is news.
NEWS = 900.0

_STOPPED_BY_CREDENTIALS = (
    "correct user name and password: on RabbitMQ 'rabbitmqctl change_password USER PASSWORD', and pubd tries again by "
    "itself; or [broker] urls in pubd.toml, then 'pubd reload'"
)
#: In the reason of a connection over which nothing comes, though the host takes it: RabbitMQ hangs, or is suspended.
_SILENT = ("handshake from", "has not answered", "heartbeats")
_NO_VHOST = (
    "make the virtual host: 'rabbitmqctl add_vhost NAME', or correct [broker] urls in pubd.toml, then 'pubd reload'"
)
_NO_PERMISSION = (
    "give pubd's user its permissions: 'rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ'; "
    "pubd tries again by itself"
)
_ACCEPTING = {
    "starting": "wait; a large spool takes a moment to open",
    "draining": "'pubd drain' says how far it is, 'pubd drain --resume' has it accept again; so does a restart",
    "stopping": "wait until it has ended, and start it again if nobody else does",
    "spool-failed": "look at pubd's log and at the disk of the spool; 'df -h', 'dmesg'",
}


@attrs.frozen(kw_only=True)
class Finding:
    """``bad``: pubd is not healthy because of it. ``advice`` says what to do; ``since`` as in the facts."""

    text: str
    advice: str
    bad: bool = True
    since: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``pubd status --json``."""
        return {"bad": self.bad, "text": self.text, "advice": self.advice, "since": self.since}


def findings(status: dict[str, Any]) -> list[Finding]:
    """What needs attention, the worst first; nothing of it ``bad``: pubd is healthy."""
    found = [_trouble(trouble, status) for trouble in status["troubles"]]
    found += _books(status)
    found += _notices(status)
    return found


def is_healthy(found: list[Finding]) -> bool:
    """Whether pubd accepts and publishes, and its books balance."""
    return not any(finding.bad for finding in found)


def _trouble(trouble: dict[str, Any], status: dict[str, Any]) -> Finding:
    type, detail, since = trouble["type"], trouble["detail"], trouble.get("since")
    link = status["link"]
    if type == "exchange-refused":
        name = trouble["exchange"]
        code = next(
            (lane["reason"]["code"] for lane in status["lanes"] if lane["exchange"] == name and lane["reason"]), None
        )
        if status["oldest"] is None:
            text = f"RabbitMQ does not take messages for exchange {exchange(name)}, and none wait: {detail}"
            return Finding(text=text, advice=_for_exchange(name, code), since=since, bad=False)
        text = f"messages for exchange {exchange(name)} wait: {detail}"
        return Finding(text=text, advice=_for_exchange(name, code), since=since)
    if type == "paused":
        to = f" to {exchange(trouble['exchange'])}" if "exchange" in trouble else ""
        said = detail.partition(" is paused ")[2]
        return Finding(
            text=f"publishing{to} is paused {said}",
            advice=f"messages are accepted, and wait; to publish again: 'pubd resume{to[3:]}'",
            since=since,
        )
    if type == "declaration-refused":
        return Finding(text=f"RabbitMQ refuses {detail}", advice=_for_declaration(detail), since=since)
    if type == "blocked":
        return Finding(
            text=detail,
            advice="make room for RabbitMQ: 'rabbitmq-diagnostics alarms' says what it lacks; pubd keeps what comes, "
            "and goes on by itself",
            since=since,
        )
    if type == "moving":
        moving = status["moving"] or link
        return Finding(
            text=f"publishing still goes over the former connection ({link['url']}); the new one: {detail}",
            advice=_for_link({"state": "waiting", "reason": moving["reason"]}),
            since=since,
        )
    if type.startswith("link-"):
        text = f"not connected to RabbitMQ ({link['state']}): {detail}"
        return Finding(text=text, advice=_for_link(link), since=since)
    if type == "spool-full":
        advice = _for_full_spool(detail, status["spool"]["path"])
    elif "pubd backup" in detail:
        advice = "do it before pubd ends; 'pubd verify FILE' looks whether all of it is there"
    else:
        advice = _ACCEPTING.get(type, "look at pubd's log")
    return Finding(text=f"submissions are refused: {detail}", advice=advice, since=since)


def _for_full_spool(detail: str, path: str | None) -> str:
    """``detail`` names the limit, as SpoolFull does."""
    if path is not None and ("(disk)" in detail or "(min_free)" in detail):
        directory = shlex.quote(plain(os.path.dirname(path)))
        return (
            f"see what fills the disk: 'df -h {directory}', and make room on it; pubd goes on by itself. What was "
            "accepted is published meanwhile"
        )
    return (
        "see why messages wait, and what they are: 'pubd list'; discard what is not wanted, or raise [spool] max_bytes "
        "or max_messages in pubd.toml, then 'pubd reload'"
    )


def _for_exchange(name: str, code: int | None) -> str:
    if code == 404:
        shown = shlex.quote(exchange(name))
        return (
            f"declare it: 'rabbitmqadmin declare exchange name={shown} type=TYPE', and bind its queues: "
            f"'rabbitmqadmin declare binding source={shown} destination=QUEUE routing_key=KEY'; pubd tries again by "
            "itself, and declares what stands in pubd.toml itself"
        )
    if code == 403:
        return _NO_PERMISSION
    return "look at what RabbitMQ says; pubd tries again by itself"


def _for_declaration(detail: str) -> str:
    if " 406 " in detail:
        return "make pubd.toml say what RabbitMQ has, or delete it there; pubd declares again by itself"
    if " 403 " in detail:
        return _NO_PERMISSION
    if " 404 " in detail:
        return "make what it names on RabbitMQ, or declare it in pubd.toml; pubd tries again by itself"
    return "look at what RabbitMQ says; pubd declares again by itself"


def _for_link(link: dict[str, Any]) -> str:
    reason = link["reason"]
    code, text = (reason["code"], reason["text"].lower()) if reason is not None else (None, "")
    if code == 530 or "vhost" in text:
        return _NO_VHOST
    if code == 403 or "access_refused" in text or "login" in text:
        return _STOPPED_BY_CREDENTIALS
    if any(words in text for words in _SILENT):
        return (
            "RabbitMQ's host answers, RabbitMQ does not: 'rabbitmq-diagnostics status' there; start or restart it: "
            "'systemctl restart rabbitmq-server'; or correct [broker] urls in pubd.toml, then 'pubd reload'. pubd "
            "keeps what comes, and goes on by itself once RabbitMQ answers"
        )
    if "certificate" in text or "tls" in text or "ssl" in text:
        return "correct the certificates: cacertfile=, certfile=, keyfile= in [broker] urls, or RabbitMQ's own"
    # Later on it is one of many tries, whatever its state is just now.
    if link["state"] in ("connecting", "handshake", "opening", "idle") and not text:
        return "wait a moment; if it stays like this, look whether RabbitMQ is well: 'rabbitmq-diagnostics status'"
    return (
        "start RabbitMQ on its host: 'systemctl start rabbitmq-server'; or correct [broker] urls in pubd.toml, then "
        "'pubd reload'. pubd keeps what comes, and goes on by itself once RabbitMQ answers"
    )


def _books(status: dict[str, Any]) -> Iterator[Finding]:
    difference = status["books"]["difference"]
    if difference:
        path = status["spool"]["path"]
        verify = f": 'pubd verify {shlex.quote(plain(path))}'" if path else ""
        yield Finding(
            text=f"the books do not balance: {messages(abs(difference))} too {'few' if difference > 0 else 'many'}",
            advice=f"stop pubd, look what the spool has{verify}, and report it",
        )


def _notices(status: dict[str, Any]) -> Iterator[Finding]:
    books, spool = status["books"], status["spool"]
    if books["parked"]:
        yield Finding(
            text=f"{messages(books['parked'])} parked: a person has to decide",
            advice="see why: 'pubd list --state parked'; once the cause is gone (NO_ROUTE: bind a queue for their "
            "routing key) 'pubd retry --state parked', or 'pubd discard ID --reason TEXT'",
            bad=False,
        )
    for lane in status["lanes"]:
        if lane["state"] == "probation":
            yield Finding(
                text=f"exchange {exchange(lane['exchange'])}: looking for a message for which RabbitMQ closes channels",
                advice="wait; the culprit will be parked with RabbitMQ's reason, and the others go on",
                bad=False,
            )
    late = moment(status["time"]) - moment(status["oldest"]) if status["oldest"] is not None else 0.0
    if late > SLOW and not status["troubles"]:
        yield Finding(
            text=f"the oldest message waits since {status['oldest']}, although RabbitMQ takes messages",
            advice="look at 'pubd list --state ready', and at RabbitMQ: 'rabbitmq-diagnostics status'",
            bad=False,
        )
    step = status.get("clock")
    ago = moment(status["time"]) - moment(step["at"]) if step is not None else NEWS
    if step is not None and 0 <= ago < NEWS:
        direction = "forward" if step["seconds"] > 0 else "back"
        yield Finding(
            text=f"the clock of pubd's host was set {direction} by {abs(step['seconds']):,.0f} s, {age(ago)} ago",
            advice="see whether it is right now: 'timedatectl'. What is deferred or has a ttl goes by it; nothing is "
            "lost, and ages that count from before are off by as much",
            bad=False,
        )
    if spool["max_bytes"] and books["bytes"] > NEARLY * spool["max_bytes"]:
        yield Finding(
            text="the spool is nearly full",
            advice="let RabbitMQ take what waits, discard what is not wanted, or raise [spool] max_bytes",
            bad=False,
        )
