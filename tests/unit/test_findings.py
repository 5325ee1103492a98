"""What facts mean: each trouble is a finding with a next step, and only what keeps pubd from its work is unhealthy."""

from __future__ import annotations

from typing import Any

import pytest

from pubd.findings import findings, is_healthy

REASON = {"cause": "refused", "code": None, "text": ""}


def facts(**given: Any) -> dict[str, Any]:
    """Of a pubd that is well."""
    books = dict.fromkeys(
        (
            *("accepted", "confirmed", "expired", "discarded", "ready", "deferred"),
            *("parked", "in_flight", "held", "bytes", "difference"),
        ),
        0,
    )
    found: dict[str, Any] = {
        "time": "2026-11-23T12:00:00.000Z",
        "troubles": [],
        "link": {"state": "ready", "url": "amqp://a", "reason": None, "blocked": None},
        "lanes": [],
        "books": books | given.pop("books", {}),
        "oldest": None,
        "clock": None,
        "spool": {"path": "/var/lib/pubd/pubd.db", "max_bytes": 1000},
    }
    return found | given


def lane(state: str, **reason: Any) -> dict[str, Any]:
    return {"exchange": "orders", "state": state, "reason": REASON | reason if reason else None}


def refused(code: int) -> dict[str, Any]:
    trouble = {"type": "exchange-refused", "detail": f"refused: {code} WORDS", "exchange": "orders"}
    return facts(troubles=[trouble], lanes=[lane("refused", code=code)], oldest="2026-11-23T11:59:59.000Z")


def unlinked(state: str, **reason: Any) -> dict[str, Any]:
    link = {"state": state, "url": "amqp://a", "reason": REASON | reason, "blocked": None}
    return facts(troubles=[{"type": f"link-{state}", "detail": "amqp://a: WORDS"}], link=link)


def test_nothing_is_wrong_with_a_pubd_that_is_well() -> None:
    assert findings(facts()) == []
    assert is_healthy([])


@pytest.mark.parametrize(
    ("given", "words", "advice"),
    [
        (
            refused(404),
            "exchange orders wait: refused: 404 WORDS",
            "'rabbitmqadmin declare exchange name=orders type=TYPE'",
        ),
        (refused(403), "403", "rabbitmqctl set_permissions"),
        (unlinked("waiting", text="Connection refused"), "not connected to RabbitMQ (waiting)", "'systemctl start"),
        (unlinked("waiting", text="no AMQP handshake from a:5672 within 10 s"), "WORDS", "'systemctl restart"),
        (unlinked("waiting", text="no TLS handshake from a:5671 within 10 s"), "WORDS", "'systemctl restart"),
        (unlinked("waiting", text="RabbitMQ has not answered on exchange 'x'"), "WORDS", "'systemctl restart"),
        (unlinked("waiting", text="too many missed heartbeats"), "WORDS", "'systemctl restart"),
        (unlinked("refused", code=403, text="ACCESS_REFUSED - Login was refused"), "WORDS", "change_password"),
        (unlinked("refused", code=530, text="NOT_ALLOWED - vhost x not found"), "WORDS", "add_vhost"),
        (unlinked("refused", text="certificate verify failed"), "WORDS", "cacertfile"),
        (unlinked("connecting", text=""), "connecting", "wait a moment"),
        (
            facts(troubles=[{"type": "blocked", "detail": "low on memory"}]),
            "low on memory",
            "'rabbitmq-diagnostics alarms'",
        ),
        (
            facts(troubles=[{"type": "declaration-refused", "detail": "queue 'q': refused: 406 PRECONDITION_FAILED"}]),
            "RabbitMQ refuses queue 'q'",
            "make pubd.toml say what RabbitMQ has",
        ),
        (
            facts(troubles=[{"type": "spool-full", "detail": "max_bytes"}]),
            "submissions are refused: max_bytes",
            "pubd list",
        ),
        (
            facts(troubles=[{"type": "spool-full", "detail": "the spool is full (disk): no room"}]),
            "submissions are refused: the spool is full (disk)",
            "'df -h /var/lib/pubd', and make room",
        ),
        (facts(troubles=[{"type": "spool-failed", "detail": "d"}]), "submissions are refused", "df -h"),
        (facts(troubles=[{"type": "of-tomorrow", "detail": "d"}]), "submissions are refused: d", "log"),
        (facts(books={"difference": -2}), "2 messages too many", "'pubd verify /var/lib/pubd/pubd.db'"),
    ],
)
def test_a_trouble_is_not_healthy_and_has_a_next_step(given: dict[str, Any], words: str, advice: str) -> None:
    found = findings(given)
    assert not is_healthy(found)
    assert words in found[0].text
    assert advice in found[0].advice


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (facts(books={"parked": 3}), "'pubd retry --state parked'"),
        (facts(lanes=[lane("probation")]), "wait"),
        (facts(oldest="2026-11-23T11:58:00.000Z"), "'pubd list --state ready'"),
        (facts(books={"bytes": 950}), "max_bytes"),
    ],
)
def test_what_waits_for_a_person_is_told_and_healthy(given: dict[str, Any], advice: str) -> None:
    (found,) = findings(given)
    assert is_healthy([found])
    assert advice in found.advice


def test_an_exchange_that_nothing_waits_for_is_no_alarm() -> None:
    (found,) = findings(refused(404) | {"oldest": None})
    assert is_healthy([found])
    assert "none wait" in found.text


def test_messages_that_wait_for_a_broker_that_is_away_are_told_once() -> None:
    given = unlinked("waiting", text="x") | {"oldest": "2026-11-23T11:00:00.000Z"}
    assert len(findings(given)) == 1


@pytest.mark.parametrize(("seconds", "words"), [(3600.0, "set forward by 3,600 s"), (-3600.2, "set back by 3,600 s")])
def test_a_step_of_the_clock_is_news_for_a_while_and_nothing_bad(seconds: float, words: str) -> None:
    (found,) = findings(facts(clock={"seconds": seconds, "at": "2026-11-23T11:59:30.000Z"}))
    assert words in found.text
    assert "'timedatectl'" in found.advice
    assert not found.bad
    assert findings(facts(clock={"seconds": seconds, "at": "2026-11-23T11:40:00.000Z"})) == []
