"""The status page: what is wrong stands first, nothing of others becomes markup, and nobody else sends its forms."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from pubd.access import Access
from pubd.access.tokens import hash_of, new_token
from pubd.intake.http.page.assets import NAMES
from pubd.intake.http.page.forms import LIFETIME, group_key, group_of
from pubd.intake.http.page.looking import SHOWN
from pubd.intake.http.page.overview import MOST, lately
from pubd.intake.http.page.render import _latency, _rate, _short
from pubd.publisher import GROUPED, GROUPS
from pubd.spool.base import Limits
from tests.network import MemoryNetwork
from tests.page import PageBench
from tests.peer import Broker
from tests.rig import Rig
from tests.slow_spool import SlowSpool
from tests.strictness import Logged
from tests.web import get, post, reading

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\u202e\x1b[2J"
GROUP = group_key({"exchange": "x", "reason": "why"})


@pytest.fixture
def bench() -> Iterator[PageBench]:
    bench = PageBench().start()
    yield bench
    bench.stop()


# What it says


def test_a_pubd_that_is_well_says_so_first(bench: PageBench) -> None:
    page = bench.page()
    assert page.all("section")[0]["class"] == "good"
    assert "Healthy" in page.text
    assert "nothing waits" in page.text
    assert page.all("link", rel="icon")[0]["href"] == "/page/healthy.svg"
    assert "No message waits for a person." in page.text


def test_what_is_wrong_and_what_to_do_stand_before_everything_else(bench: PageBench) -> None:
    bench.rig.network.down = True
    bench.rig.peer.drop()
    bench.rig.network.advance(3)
    page = bench.page()
    text = page.text.partition("Find")[2]
    assert page.all("section")[0]["class"] == "bad"
    assert text.index("Not healthy") < text.index("not connected to RabbitMQ") < text.index("start RabbitMQ")
    assert text.index("start RabbitMQ") < text.index("Lately")
    assert page.all("link", rel="icon")[0]["href"] == "/page/unhealthy.svg"
    assert "<title>NOT HEALTHY: not connected" in page.source


def test_a_blocked_connection_is_told_in_rabbitmqs_words(bench: PageBench) -> None:
    bench.rig.send("a")
    bench.rig.peer.block("low on disk")
    bench.rig.network.advance(20)
    page = bench.page()
    assert "RabbitMQ blocks the connection: low on disk" in page.text
    assert "rabbitmq-diagnostics alarms" in page.text
    assert "<code>rabbitmq-diagnostics alarms</code>" in page.source


def test_a_refused_exchange_stands_among_the_lanes_with_the_reason(bench: PageBench) -> None:
    bench.rig.send("a", exchange="missing")
    bench.rig.network.advance(2)
    page = bench.page()
    assert "messages for exchange missing wait" in page.text
    assert page.text.count("404 NOT_FOUND") >= 2


def test_hundreds_of_findings_and_lanes_are_counted_not_listed() -> None:
    bench = PageBench(rig=Rig(MemoryNetwork(Broker(exchanges={})), drain_timeout=0.0).start()).start()
    for n in range(60):
        bench.rig.submit(exchange=f"missing-{n}")
    bench.rig.network.advance(5)
    page = bench.page()
    assert len([each for each in page.all("li") if each.get("class") == "bad"]) == MOST
    assert f"and {60 - MOST} more" in page.text
    bench.stop()


def test_the_books_are_on_it(bench: PageBench) -> None:
    bench.rig.send("a", "b")
    bench.parked("c")
    text = " ".join(bench.page().text.split())
    assert "3 accepted = 2 confirmed + 0 expired + 0 discarded + 1 held balanced" in text


def test_what_happened_lately_is_there_without_any_script(bench: PageBench) -> None:
    assert "Nothing yet" in bench.page().text
    bench.rig.send(*(f"m{n}" for n in range(50)))
    bench.rig.network.advance(61)
    page = bench.page()
    assert (
        '<th>accepted <small>a second</small></th><td class="number">0</td><td class="number">0.8</td>' in page.source
    )


def test_a_spool_that_hangs_is_told_and_the_page_is_there_all_the_same(logged: Logged) -> None:
    network = MemoryNetwork(Broker(exchanges={"x": {"k"}}))
    spool = SlowSpool(network)
    bench = PageBench(rig=Rig(network, spool=spool).start()).start()
    bench.parked("a")
    spool.claiming = 1000.0
    channel, wire = bench.connect()
    channel.dataReceived(get("/"))
    network.advance(3)
    assert b"does not answer" in wire.value()
    spool.claiming = 0.0
    network.advance(1000)
    bench.stop()
    assert not logged.alarming()


def test_without_scripts_it_loads_itself_anew_unless_it_is_paused(bench: PageBench) -> None:
    assert '<noscript><meta http-equiv="refresh"' in bench.page().source
    assert "http-equiv" not in bench.page("/?paused=true").source


# Parked


def test_parked_messages_stand_there_with_why_in_groups_and_one_by_one(bench: PageBench) -> None:
    ids = bench.parked("a", "b") + bench.parked("c", exchange="y")
    page = bench.page()
    assert [each["value"] for each in page.all("input", name="id")] == ids
    assert [group_of(each["value"])[0] for each in page.all("input", name="group")] == ["x", "y"]
    assert "312 NO_ROUTE" in page.text
    only = bench.page("/?exchange=y")
    assert [each["value"] for each in only.all("input", name="id")] == ids[2:]
    assert only.all("input", name="group") == []
    assert "No more of them" in bench.page("/?exchange=nothing").text


def test_there_are_pages_of_them(bench: PageBench) -> None:
    ids = bench.parked(*(f"m{n}" for n in range(2 * SHOWN + 1)))
    seen: list[str] = []
    address = "/"
    while True:
        page = bench.page(address)
        seen += [each["value"] for each in page.all("input", name="id")]
        following = [each["href"] for each in page.all("a") if each.get("class") == "next"]
        if not following:
            break
        address = following[0].partition("#")[0]
    assert seen == ids


def test_of_very_many_the_first_are_grouped(bench: PageBench) -> None:
    bench.parked(*(f"m{n}" for n in range(GROUPED + 5)))
    page = bench.page()
    assert f"Counted in the first {GROUPED:,} of {GROUPED + 5:,}." in page.text


def test_of_very_many_reasons_the_largest_are_told_and_the_others_counted() -> None:
    exchanges: dict[str, set[str]] = {f"x{number}": set() for number in range(GROUPS + 5)}
    bench = PageBench(rig=Rig(MemoryNetwork(Broker(exchanges=exchanges))).start())
    for number in range(GROUPS + 5):
        bench.parked("a", exchange=f"x{number}")
    bench.parked("b", exchange=f"x{GROUPS + 4}")
    page = bench.page()
    told = [group_of(each["value"])[0] for each in page.all("input", name="group")]
    assert told == [f"x{GROUPS + 4}", *(f"x{number}" for number in range(9))]
    assert f"and for {GROUPS + 5 - 10} more reasons" in page.text
    bench.rig.stop()


def test_there_is_no_next_page_where_the_last_one_is_full(bench: PageBench) -> None:
    bench.parked(*(f"m{n}" for n in range(SHOWN)))
    assert [each for each in bench.page().all("a") if each.get("class") == "next"] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/?after=nothing", "after"),
        ("/?wrong=1", "wrong"),
        ("/page/search?q=", "q"),
        ("/page/search", "q"),
        (f"/page/search?q={'x' * 300}", "q"),
        ("/page/search?q=a&before=b", "before"),
        ("/?exchange=%", "exchange"),
    ],
)
def test_what_it_cannot_be_asked_is_told_as_a_page(path: str, field: str, bench: PageBench) -> None:
    page = bench.page(path, 400)
    assert f"<code>{field}</code>" in page.source


# Messages


def test_a_message_is_shown_with_everything_known_of_it(bench: PageBench) -> None:
    (id,) = bench.parked("m1", headers={"k": [1, "v"]}, content_type="text/plain", body="Grüße\tan\nalle".encode())
    page = bench.page(f"/page/messages/{id}")
    for part in ("m1", "312 NO_ROUTE", "header k", '[1, "v"]', "text/plain", "Grüße\tan\nalle", "returned"):
        assert part in page.text, part
    assert page.value("id") == id


def test_what_became_of_it_is_shown_where_its_body_is_no_more(bench: PageBench) -> None:
    (id,) = bench.parked("m1", body=b"secret")
    bench.decide(id, do="discard", sure="yes", reason="from the test")
    page = bench.page(f"/page/messages/{id}")
    assert "from the test" in page.text
    assert "secret" not in page.text
    assert "kept until a message is settled" in page.text
    assert page.all("button", name="do") == []


def test_bytes_are_shown_in_hexadecimal_and_no_more_than_is_good(bench: PageBench) -> None:
    (id,) = bench.parked("m1", body=b"\0\1" * 100_000)
    page = bench.page(f"/page/messages/{id}")
    assert "00000000  00 01" in page.text
    assert "the first 64.0 KiB of 195.3 KiB" in page.text


def test_an_unknown_message_is_a_page_that_says_so(bench: PageBench) -> None:
    assert "knows no message with this id" in bench.page("/page/messages/nobody", 404).text


# Search


def test_an_id_leads_to_its_message(bench: PageBench) -> None:
    (id,) = bench.parked("m1")
    for wanted in (id, id.upper(), f"%20{id}%20"):
        got = bench.get(f"/page/search?q={wanted}")
        assert (got.status, got.headers["location"]) == (303, f"/page/messages/{id}")


def test_a_message_id_of_the_application_gives_all_that_have_it(bench: PageBench) -> None:
    first, second = bench.parked("order 7"), bench.parked("order 7")
    bench.parked("order 8")
    page = bench.page("/page/search?q=order+7")
    assert [each["href"].rpartition("/")[2] for each in page.all("a") if each.get("class") == "id"] == second + first
    assert "knows no message" in bench.page("/page/search?q=order+9").text


# Deciding


def test_retry_publishes_it_again(bench: PageBench) -> None:
    (id,) = bench.parked("a")
    bench.rig.broker.exchanges["x"].add("nowhere")
    got = bench.decide(id, do="retry")
    assert (got.status, got.headers["location"]) == (303, f"/page/messages/{id}?did=retry&count=1")
    bench.rig.network.flush()
    assert "1 message published again" in bench.page(f"/?{got.headers['location'].partition('?')[2]}").text
    assert bench.rig.publisher.account().books.confirmed == 1


def test_discard_asks_first_and_then_does_it_with_the_reason(bench: PageBench, logged: Logged) -> None:
    ids = bench.parked("a", "b", "c")
    asked = bench.read(bench.decide(*ids[:2], do="discard"))
    assert "Discard 2 messages?" in asked.text
    assert bench.state(ids[0]) == "parked"
    got = bench.send([*asked.fields(), ("reason", "not wanted")])
    assert (got.status, got.headers["location"]) == (303, "/?did=discard&count=2")
    assert [bench.state(id) for id in ids] == ["discarded", "discarded", "parked"]
    record = bench.get(f"/messages/{ids[0]}").json
    assert record["reason"]["text"] == "not wanted"
    assert any("discarded 2 message(s)" in text for text in logged.texts)


def test_what_waits_is_held_and_released(bench: PageBench) -> None:
    bench.rig.network.down = True
    bench.rig.peer.drop()
    bench.rig.network.advance(1)
    (sent,) = bench.rig.send("a")
    assert sent.receipt is not None
    id = sent.receipt.id
    page = bench.page(f"/page/messages/{id}")
    assert [each["value"] for each in page.all("button", name="do")] == ["hold", "discard"]
    token = page.value("token")
    assert bench.decide(id, do="hold", token=token).headers["location"].endswith("?did=hold&count=1")
    page = bench.page(f"/page/messages/{id}")
    assert [each["value"] for each in page.all("button", name="do")] == ["release", "discard"]
    assert "Decided by people" in page.text
    assert [each["value"] for each in bench.page().all("button", name="do")][:2] == ["release", "discard"]
    told = bench.read(bench.decide(id, do="retry", token=token), 409)
    assert "held by an operator" in told.text
    assert bench.decide(id, do="release", token=token).status == 303
    assert bench.state(id) == "ready"


def test_a_pause_is_told_with_who_and_why(bench: PageBench) -> None:
    bench.rig.publisher.pause("x", "until monday", who="night-shift")
    bench.rig.send("a")
    bench.rig.network.advance(2)
    page = bench.page()
    assert page.all("section")[0]["class"] == "bad"
    assert "night-shift: until monday" in page.text
    assert "pubd resume x" in page.text


def test_what_was_done_by_somebody_else_meanwhile_is_told(bench: PageBench) -> None:
    ids = bench.parked("a", "b")
    page = bench.page()
    bench.decide(ids[0], do="discard", sure="yes")
    got = bench.decide(*ids, do="retry", token=page.value("token"))
    told = bench.read(got, 409)
    assert "1 message left as it is, 1 done" in told.text
    assert ids[0] in told.text
    assert "discarded" in told.text


def test_a_whole_group_is_asked_about_and_then_done(bench: PageBench) -> None:
    ids = bench.parked(*(f"m{n}" for n in range(1500)))
    others = bench.parked("other", exchange="y")
    page = bench.page()
    group = next(each["value"] for each in page.all("input", name="group") if group_of(each["value"])[0] == "x")
    asked = bench.read(bench.send([("token", page.value("token")), ("group", group), ("do", "discard")]))
    assert "1,000 or more messages" in asked.text
    assert bench.rig.publisher.account().books.parked == 1501
    got = bench.send([*asked.fields(), ("reason", "a test")])
    assert (got.status, got.headers["location"]) == (303, "/?did=discard&count=1500")
    assert bench.state(ids[-1]) == "discarded"
    assert bench.state(others[0]) == "parked"


def test_of_a_group_only_those_with_its_reason_are_concerned(bench: PageBench) -> None:
    (returned,) = bench.parked("a")
    poison = bench.rig.submit("p", poison=True)
    bench.rig.network.advance(5)
    assert poison.parked is not None
    page = bench.page()
    groups = [each["value"] for each in page.all("input", name="group")]
    assert len(groups) == 2
    group = next(each for each in groups if "NO_ROUTE" in group_of(each)[1])
    fields = [("token", page.value("token")), ("group", group), ("do", "discard"), ("sure", "yes")]
    assert bench.send(fields).headers["location"] == "/?did=discard&count=1"
    assert bench.state(returned) == "discarded"
    assert bench.rig.publisher.account().books.parked == 1


def test_a_set_that_takes_long_is_asked_about_again(bench: PageBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pubd.intake.http.page.deciding.PATIENCE", 0.0)
    monkeypatch.setattr("pubd.intake.http.page.deciding.STEP", 2)
    bench.parked("a", "b", "c", "d", "e")
    page = bench.page()
    fields = [*page.fields("token", "group"), ("do", "discard"), ("sure", "yes")]
    asked = bench.read(bench.send(dict(fields).items()))
    assert "2 messages done; go on" in asked.text
    asked = bench.read(bench.send(asked.fields()))
    assert "4 messages done; go on" in asked.text
    got = bench.send(asked.fields())
    while got.status == 200:
        got = bench.send(bench.read(got).fields())
    assert got.headers["location"] == "/?did=discard&count=5"


@pytest.mark.parametrize(
    "given",
    [
        {"do": "publish"},
        {},
        {"do": "retry", "id": "<script>"},
        {"do": "retry", "group": GROUP, "after": "?"},
        {"do": "retry", "group": GROUP, "done": "-1"},
        {"do": "retry", "group": ""},
        {"do": "retry", "group": "é"},
        {"do": "retry", "group": "W10="},
        {"do": "retry", "group": "MQ=="},
        {"do": "retry", "surprise": "x"},
    ],
)
def test_a_form_that_is_wrong_is_refused(given: dict[str, str], bench: PageBench) -> None:
    (id,) = bench.parked("a")
    token = bench.page().value("token")
    bench.read(bench.send([("token", token), *given.items()]), 400)
    bench.read(bench.send([("token", token), ("do", "retry")]), 400)
    assert bench.state(id) == "parked"


def test_a_body_that_is_no_form_is_refused(bench: PageBench) -> None:
    for body in (b"\xff", b"no form", b"a=%ff", b"a=1&" * 2000):
        (got,), _ = bench.ask(
            post(body, path="/page/decide", headers="Content-Type: application/x-www-form-urlencoded\r\n")
        )
        bench.read(got, 400)
    (got,), _ = bench.ask(post(b"{}", path="/page/decide"))
    bench.read(got, 415)


def test_only_what_pubd_wrote_into_an_address_makes_a_sentence(bench: PageBench) -> None:
    for query in ("did=nonsense&count=1", "did=retry&count=-1", "did=retry&count=x", "did=retry"):
        assert bench.page(f"/?{query}").all("p", **{"class": "did"}) == []
    assert bench.page("/?did=discard&count=3").all("p", **{"class": "did"})


# Who


def test_a_form_needs_the_token_of_its_page(bench: PageBench) -> None:
    (id,) = bench.parked("a")
    token = bench.page().value("token")
    for wrong in ("", "x", f"{token}x", token.replace(".", ".0"), "9999999999999999999." + token[5:], "é.ü"):
        bench.read(bench.decide(id, do="retry", token=wrong), 403)
    assert bench.state(id) == "parked"
    bench.clock.advance(LIFETIME + 1)
    assert "too old" in bench.read(bench.decide(id, do="retry", token=token), 403).text


@pytest.mark.parametrize(
    "headers",
    [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:1\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ],
)
def test_pages_of_other_sites_cannot_send_its_forms(headers: str, bench: PageBench) -> None:
    (id,) = bench.parked("a")
    token = bench.page().value("token")
    got = bench.send([("token", token), ("id", id), ("do", "retry")], headers=headers)
    bench.read(got, 403)
    assert bench.state(id) == "parked"


def test_under_a_name_that_is_not_this_hosts_it_is_not_shown(bench: PageBench) -> None:
    (got,), _ = bench.ask(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert "403" in str(bench.read(got, 403) and got.status)


def basic(token: str) -> str:
    import base64

    return f"Authorization: Basic {base64.b64encode(f'me:{token}'.encode()).decode()}\r\n"


def test_a_browser_is_asked_for_a_password_and_its_token_is_one() -> None:
    operator, shop = new_token(), new_token()
    access = Access(
        [reading(operate=True, name="operator", tokens=(hash_of(operator),)), reading(tokens=(hash_of(shop),))],
        anonymous=None,
    )
    bench = PageBench(access=access)
    got = bench.get()
    assert got.headers["www-authenticate"] == 'Basic realm="pubd", charset="UTF-8"'
    assert "pubd token new" in bench.read(got, 401).text
    bench.read(bench.get(headers=basic("wrong")), 401)
    bench.read(bench.get(headers=basic(shop)), 403)
    page = bench.read(bench.get(headers=basic(operator)))
    assert "Healthy" in page.text
    assert bench.get("/page/style.css").status == 200
    bench.rig.stop()


def test_a_token_is_for_one_principal() -> None:
    mine, others = new_token(), new_token()
    people = [
        reading(operate=True, name=name, tokens=(hash_of(token),)) for name, token in (("a", mine), ("b", others))
    ]
    bench = PageBench(access=Access(people, anonymous=None))
    (id,) = bench.parked("m")
    token = bench.read(bench.get(headers=basic(mine))).value("token")
    fields = [("token", token), ("id", id), ("do", "retry")]
    bench.read(bench.send(fields, headers=basic(others)), 403)
    assert bench.send(fields, headers=basic(mine)).status == 303
    bench.rig.stop()


def test_what_a_browser_keeps_is_of_no_use_to_pages_of_other_sites() -> None:
    token = new_token()
    operator = reading(operate=True, name="operator", tokens=(hash_of(token),))
    bench = PageBench(access=Access([operator], anonymous=None))
    (id,) = bench.parked("m")
    evil = basic(token) + "Origin: http://evil.example\r\n"
    bench.read(bench.send([("token", "x"), ("id", id), ("do", "retry")], headers=evil), 403)
    (got,), _ = bench.ask(
        get(f"/messages/{id}/retry", evil, method="POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")
    )
    assert (got.status, got.json["field"]) == (403, "origin")
    assert bench.state_as(id, basic(token)) == "parked"
    bench.rig.stop()


# Nothing of others becomes markup


def test_hostile_texts_are_shown_and_are_nothing_but_texts() -> None:
    rig = Rig(MemoryNetwork(Broker(exchanges={HOSTILE[:200]: {"k"}, "x": {"k"}})), drain_timeout=0.0).start()
    bench = PageBench(rig=rig).start()
    (id,) = bench.parked(
        HOSTILE, exchange=HOSTILE[:200], headers={HOSTILE[:100]: HOSTILE}, body=HOSTILE.encode(), type=HOSTILE
    )
    rig.send("a", exchange="</title><script>")
    rig.peer.block(HOSTILE)
    rig.network.advance(2)
    for path in (
        "/",
        f"/page/messages/{id}",
        "/?exchange=%3Cscript%3E",
        "/page/search?q=%3Cscript%3Ealert(1)%3C/script%3E",
    ):
        page = bench.page(path)
        assert "\u202e" not in page.text
        assert "\x1b" not in page.source
    assert "<script>alert(1)</script>" in bench.page(f"/page/messages/{id}").text
    page = bench.page()
    assert HOSTILE[:200] in [group_of(each["value"])[0] for each in page.all("input", name="group")]
    asked = bench.read(bench.send([*page.fields("token", "group"), ("do", "discard")]))
    got = bench.send([*asked.fields(), ("reason", HOSTILE)])
    assert got.headers["location"] == "/?did=discard&count=1"
    assert HOSTILE.partition("\u202e")[0] in bench.page(f"/page/messages/{id}").text
    bench.stop()


# Files


def test_its_files_are_there_for_everybody_small_where_that_is_wanted() -> None:
    bench = PageBench(access=Access(anonymous=None))
    for name in NAMES:
        plain = bench.get(f"/page/{name}")
        small = bench.get(f"/page/{name}", "Accept-Encoding: br, gzip\r\n")
        assert plain.status == small.status == 200
        assert gzip.decompress(small.body) == plain.body
        assert small.headers["vary"] == "Accept-Encoding"
    assert bench.get("/page/nothing.js").status == 404
    bench.rig.stop()


def test_it_asks_nobody_else_for_anything(bench: PageBench) -> None:
    bench.parked("a")
    sources = [
        bench.page().source,
        *(bench.get(f"/page/{name}").body.decode() for name in NAMES if "uplot" not in name),
    ]
    for source in sources:
        assert "//" not in source.replace("http://www.w3.org/2000/svg", "").replace("amqp://", "").replace("// ", "")


def test_the_licence_of_uplot_comes_with_it() -> None:
    licence = (files("pubd.intake.http.page") / "static" / "uplot.LICENSE").read_text()
    assert "MIT" in licence
    assert "Leon Sorokin" in licence


# Numbers


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (99_999, "99,999"), (100_000, "100k"), (999_999, "999k"), (1_000_000, "1.0M"), (41_099_999, "41.0M")],
)
def test_large_numbers_in_large_letters_are_short_and_never_too_large(count: int, shown: str) -> None:
    assert _short(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.0, "0"), (0.01, "<0.1"), (0.25, "0.2"), (9.96, "10.0"), (12_345.6, "12,346")]
)
def test_rates(value: float | None, shown: str) -> None:
    assert _rate(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.0004, "0.4 ms"), (0.0099, "9.9 ms"), (0.25, "250 ms"), (1.25, "1.2 s")]
)
def test_latencies(value: float | None, shown: str) -> None:
    assert _latency(value) == shown


def history(count: int, **given: Any) -> dict[str, Any]:
    names = ("accepted", "confirmed", "returned", "nacked", "lost", "ready", "in_flight", "deferred", "parked", "bytes")
    found: dict[str, Any] = {name: [0] * count for name in (*names, "blocked", "down", "oldest")}
    found |= {"interval": 5.0, "last": count, "time": list(range(count))}
    found |= {"confirm_p50": [None] * count, "confirm_p99": [None] * count}
    return found | given


def test_lately_has_the_means_of_rates_and_the_worst_of_all_else() -> None:
    assert lately(history(0)) == []
    (one,) = lately(history(1, accepted=[7.0]))
    assert (one["label"], one["accepted"], one["confirm_p99"]) == ("5 s", 7.0, None)
    now, minute = lately(
        history(
            12,
            accepted=[float(n) for n in range(12)],
            ready=[100, *[0] * 11],
            in_flight=[5, *[0] * 11],
            confirm_p99=[None, 3.0, *[1.0] * 10],
            confirm_p50=[None, *[0.5] * 11],
            oldest=[None, 9.0, *[0.0] * 10],
            blocked=[1.0, 0.5, *[0.0] * 10],
        )
    )
    assert (now["accepted"], minute["accepted"]) == (11.0, 5.5)
    assert (minute["waiting"], minute["confirm_p99"], minute["confirm_p50"]) == (105, 3.0, 0.5)
    assert (minute["oldest"], minute["blocked"]) == (9.0, 7.5)
    assert [column["label"] for column in lately(history(720))] == ["5 s", "1 min", "10 min", "1 h"]


def test_the_page_is_not_in_the_document_for_programs(bench: PageBench) -> None:
    paths = set(bench.get("/openapi.json").json["paths"])
    assert "/" not in paths
    assert json.dumps(sorted(paths)).count("/page") == 0


def test_a_limit_that_is_nearly_reached_shows(logged: Logged) -> None:
    bench = PageBench(limits=Limits(max_bytes=400))
    bench.parked("a", body=b"x" * 100)
    assert "the spool is nearly full" in bench.page().text or "submissions are refused" in bench.page().text
    bench.rig.stop()
    assert not logged.alarming()
