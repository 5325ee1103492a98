"""The status page in a real browser, before a real daemon and a real RabbitMQ.

How it fails: a script of somebody else's runs; the page breaks its own policy; a click decides about something else
than was meant, or a page of another site clicks; at the width of a phone it has to be scrolled sideways; it shows what
was, as if it were what is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from pubd.access.tokens import hash_of, new_token
from tests.chromium import DESK, PHONE, Chromium
from tests.integration.spooled import bind, declare
from tests.rabbitmq import Node
from tests.service.conftest import Run
from tests.service.process import until
from tests.service.served_page import ServedPage, fill

HOSTILE = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1><svg onload=window.hacked=1>\u202e"
SIZES = [(DESK, False), (PHONE, False), (PHONE, True), ((320, 600), False)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    chromium = Chromium(tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()


@pytest.fixture
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One without JavaScript."""
    chromium = Chromium(tmp_path_factory.mktemp("chromium"), scripts=False)
    yield chromium
    chromium.close()


@pytest.fixture
def see(browser: Chromium) -> Iterator[Chromium]:
    """A window in which nothing may be complained about."""
    browser.open("about:blank")
    browser.complaints()
    browser.look()
    yield browser
    complaints = browser.complaints()
    browser.open("about:blank")
    assert complaints == []


Serve = Callable[..., ServedPage]


@pytest.fixture
def serve(run: Run, tmp_path: Path) -> Serve:
    return lambda broker, more="", token="": ServedPage(run, tmp_path, broker, more, token)


@pytest.fixture
def page(serve: Serve, url: str) -> ServedPage:
    """With an exchange ``orders``, whose messages with the key ``new`` are routed."""
    declare(url, "orders", "direct")
    bind(url, "orders", "new-orders", "new")
    return serve(url)


@pytest.fixture
def lonely(serve: Serve, nowhere: str) -> ServedPage:
    """Without a broker, where that does not matter."""
    return serve(nowhere)


def headline(chromium: Chromium) -> str:
    return chromium.text("#state h1")


def fits(chromium: Chromium) -> None:
    """No window makes it scroll sideways."""
    for size, dark in SIZES:
        chromium.look(size=size, dark=dark)
        chromium.until(lambda: chromium.overflow == 0, f"a page that is not wider than {size}")
    chromium.look()


# What it shows


def test_a_pubd_that_is_well(see: Chromium, page: ServedPage) -> None:
    ids = [page.submit(exchange="orders", routing_key="new") for _ in range(5)]
    for id in ids:
        page.reaches(id, "confirmed")
    see.open(page.url)
    assert headline(see) == "✓ Healthy" or headline(see) == "Healthy"
    see.until(lambda: len(see.all("#charts canvas")) == 4, "the charts")
    assert "5 accepted" in see.text("#books")
    fits(see)
    before = see.text("#fresh")
    see.until(lambda: see.text("#fresh") != before, "something fresh")
    see.until(lambda: "5 s" in see.text("#numbers"), "a sample")


def test_it_can_be_paused_and_goes_on(see: Chromium, lonely: ServedPage) -> None:
    see.open(lonely.url)
    see.click("#pause")
    assert see.text("#pause") == "Paused"
    before = see.text("#fresh")
    lonely.submit(exchange="orders", routing_key="new")
    until(lambda: lonely.get("/status")["books"]["accepted"] == 1)
    # Of a reload, what was wanted is remembered.
    see.open(lonely.url)
    assert see.text("#pause") == "Paused"
    before = see.text("#fresh")
    see.script("window.asked = performance.getEntriesByType('resource').length")
    see.click("#pause")
    see.until(lambda: see.text("#fresh") != before, "something fresh")
    assert see.text("#pause") == "Pause"


def test_ranges_are_chosen_and_remembered(see: Chromium, lonely: ServedPage) -> None:
    see.open(lonely.url)
    see.click("[data-range='24h']")
    see.until(lambda: see.all("[data-range='24h'][aria-pressed=true]"), "the range")
    see.open(lonely.url)
    see.until(lambda: see.all("[data-range='24h'][aria-pressed=true]"), "the range")
    see.click("[data-range='10m']")


def test_dark_is_dark(see: Chromium, lonely: ServedPage) -> None:
    see.open(lonely.url)
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    light = see.script(ground)
    see.look(dark=True)
    dark = see.script(ground)
    assert sum(map(int, dark[4:-1].split(","))) < 150 < 600 < sum(map(int, light[4:-1].split(",")))


def test_an_empty_pubd(see: Chromium, page: ServedPage) -> None:
    see.open(page.url)
    assert "nothing waits" in see.text("#state")
    assert "No message waits for a person." in see.text("#parked")
    assert "None: nothing was published" in see.text("#lanes")
    fits(see)


def test_a_broker_that_is_not_there(see: Chromium, serve: Serve, nowhere: str) -> None:
    page = serve(nowhere)
    page.submit(exchange="orders")
    see.open(page.url)
    see.until(lambda: "Not healthy" in headline(see))
    assert "not connected to RabbitMQ" in see.text("#state")
    see.until(lambda: "start RabbitMQ" in see.text("#state"), "what to do, once it was tried")
    assert "s3cret" not in see.driver.page_source
    assert "NOT HEALTHY" in see.driver.title
    see.until(lambda: see.all("#charts canvas"), "the charts")
    fits(see)


def test_an_exchange_that_is_missing(see: Chromium, page: ServedPage) -> None:
    page.submit(exchange="missing")
    see.open(page.url)
    see.until(lambda: "messages for exchange missing wait" in see.text("#state"))
    assert "404 NOT_FOUND" in see.text("#lanes")
    fits(see)


def test_a_broker_that_blocks(see: Chromium, serve: Serve, own_node: Node) -> None:
    declare(own_node.url, "orders", "direct")
    page = serve(own_node.url)
    own_node.set_memory_alarm(True)
    page.submit(exchange="orders", routing_key="new")
    until(lambda: page.get("/status")["link"]["state"] == "blocked")
    see.open(page.url)
    assert "RabbitMQ blocks the connection: low on memory" in see.text("#state")
    fits(see)
    own_node.set_memory_alarm(False)
    see.until(lambda: "Healthy" in headline(see), "it notices by itself")


def test_a_million_messages(see: Chromium, serve: Serve, nowhere: str, tmp_path: Path) -> None:
    fill(tmp_path / "pubd.db", 1_000_000, parked=30_000)
    page = serve(nowhere)
    see.open(page.url)
    assert "970k" in see.text("#figures")
    assert "1,000,000 held" in see.text("#books")
    assert "Counted in the first 5,000 of 30,000." in see.text("#parked")
    fits(see)
    see.driver.find_element(By.NAME, "q").send_keys("order-999999\n")
    see.until(lambda: len(see.all("main a.id")) == 1, "the message")
    see.open(f"{page.url}/page/search?q=order-1")
    see.until(lambda: len(see.all("main a.id")) == 1, "the message that was accepted first")


def test_a_pubd_that_is_gone(see: Chromium, lonely: ServedPage) -> None:
    see.open(lonely.url)
    lonely.process.interrupt()
    lonely.process.ends()
    see.until(lambda: "pubd does not answer since" in see.text("#lost"), "it says so")
    lonely.start()
    see.until(lambda: not see.one("#lost").is_displayed(), "it is back")
    # What the browser itself says of connections that were refused.
    assert all("ERR_CONNECTION_REFUSED" in each or "status 503" in each for each in see.complaints())


# What is clicked


def test_chosen_messages_are_published_again(see: Chromium, page: ServedPage, url: str) -> None:
    first, second, third = [page.submit(exchange="orders", routing_key="lost") for _ in range(3)]
    for id in (first, second, third):
        page.reaches(id, "parked")
    bind(url, "orders", "lost-orders", "lost")
    see.open(page.url)
    see.click(f"input[value='{first}']")
    see.click(f"input[value='{third}']")
    see.click("#parked form > p button[value=retry]")
    see.until(lambda: "2 messages published again" in see.text(".did"))
    page.reaches(first, "confirmed")
    page.reaches(third, "confirmed")
    assert page.state(second) == "parked"


def test_what_is_to_be_discarded_is_asked_about(see: Chromium, page: ServedPage) -> None:
    id = page.submit(exchange="orders", routing_key="lost")
    page.reaches(id, "parked")
    see.open(f"{page.url}/page/messages/{id}")
    see.click("button[value=discard]")
    see.until(lambda: "Discard 1 message?" in see.text("h1"))
    assert page.state(id) == "parked"
    see.click("a[href='/#parked']")
    see.until(lambda: see.all("#parked"))
    assert page.state(id) == "parked"
    see.open(f"{page.url}/page/messages/{id}")
    see.click("button[value=discard]")
    see.one("input[name=reason]").send_keys("ordered by mistake")
    see.click("button.danger")
    see.until(lambda: "1 message discarded" in see.text(".did"))
    assert "ordered by mistake" in see.text(".verdict")
    assert page.get(f"/messages/{id}")["reason"]["text"] == "ordered by mistake"


def test_a_whole_group(see: Chromium, page: ServedPage) -> None:
    ids = [page.submit(exchange="orders", routing_key="lost") for _ in range(30)]
    for id in ids:
        page.reaches(id, "parked")
    see.open(page.url)
    see.click(".groups button[value=discard]")
    see.until(lambda: "Discard 30 messages parked for exchange orders" in see.text("h1"))
    fits(see)
    see.click("button.danger")
    see.until(lambda: "30 messages discarded" in see.text(".did"))
    assert {page.state(id) for id in ids} == {"discarded"}


def test_what_is_chosen_is_not_taken_away_by_a_refresh(see: Chromium, page: ServedPage) -> None:
    id = page.submit(exchange="orders", routing_key="lost")
    page.reaches(id, "parked")
    see.open(page.url)
    see.click(f"input[value='{id}']")
    before = see.text("#fresh")
    see.until(lambda: see.text("#fresh") != before, "something fresh")
    assert see.one(f"input[value='{id}']").is_selected()
    see.click("th.choose input")
    assert see.one(f"input[value='{id}']").is_selected()


# Without JavaScript


def test_without_javascript_everything_can_be_read_and_done(plain: Chromium, page: ServedPage, url: str) -> None:
    first, second = [page.submit(exchange="orders", routing_key="lost") for _ in range(2)]
    for id in (first, second):
        page.reaches(id, "parked")
    bind(url, "orders", "lost-orders", "lost")
    plain.open(page.url)
    assert "Healthy" in headline(plain)
    assert not plain.one("#charts").is_displayed()
    assert not plain.one("#pause").is_displayed()
    before = plain.text("#fresh")
    plain.until(lambda: plain.text("#fresh") != before, "it loads itself anew")
    plain.open(f"{page.url}/?paused=true")
    plain.driver.find_element(By.CSS_SELECTOR, f"input[value='{first}']").click()
    plain.driver.find_element(By.CSS_SELECTOR, "#parked form > p button[value=retry]").click()
    plain.until(lambda: "1 message published again" in plain.text(".did"))
    page.reaches(first, "confirmed")
    plain.open(f"{page.url}/page/messages/{second}")
    plain.driver.find_element(By.CSS_SELECTOR, "button[value=discard]").click()
    # The page before has such a button, too.
    plain.until(lambda: len(plain.all("section.sure")) == 1, "the question")
    plain.driver.find_element(By.CSS_SELECTOR, "section.sure button.danger").click()
    plain.until(lambda: "1 message discarded" in plain.text(".did"))
    assert page.state(second) == "discarded"


# Others


def test_hostile_messages_are_shown_harmlessly(see: Chromium, page: ServedPage, url: str) -> None:
    declare(url, HOSTILE[:60], "topic")
    id = page.submit(
        exchange=HOSTILE[:60],
        routing_key=HOSTILE[:80],
        message_id=HOSTILE,
        headers={HOSTILE: HOSTILE},
        type=HOSTILE,
        body=HOSTILE * 3,
        content_type="text/html",
    )
    page.reaches(id, "parked")
    page.submit(exchange="</title><script>window.hacked=1</script>")
    search = "/page/search?q=%3Cscript%3Ewindow.hacked=1%3C/script%3E"
    for path in (f"/page/messages/{id}", search, "/?exchange=<svg>", "/"):
        see.open(page.url + path)
        assert see.script("return window.hacked") is None, path
        assert see.all("main img, main svg, main script") == [], path
        fits(see)
    see.until(lambda: see.all(".groups"))
    before = see.text("#fresh")
    see.until(lambda: see.text("#fresh") != before, "something fresh, put in by the script")
    assert see.script("return window.hacked") is None
    see.open(f"{page.url}/page/messages/{id}")
    assert "<script>window.hacked=1</script>" in see.text("pre.body")
    see.click("button[value=discard]")
    see.one("input[name=reason]").send_keys("<script>window.hacked=1</script>")
    see.click("button.danger")
    see.until(lambda: "<script>" in see.text(".verdict"))
    assert see.script("return window.hacked") is None


class _Evil(BaseHTTPRequestHandler):
    """A page of another site that sends a form as soon as somebody looks at it."""

    target = ""
    fields = ""

    def do_GET(self) -> None:
        body = (
            f"<!doctype html><title>evil</title><body><form method=post action='{self.target}'>{self.fields}</form>"
            "<script>document.forms[0].submit()</script>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody wants to know."""


@pytest.fixture
def evil() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Evil)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("password", [False, True])
def test_a_page_of_another_site_cannot_click(
    browser: Chromium, serve: Serve, nowhere: str, evil: ThreadingHTTPServer, password: bool
) -> None:
    token = new_token()
    people = f'[[principal]]\nname = "operator"\noperate = true\ntokens = ["{hash_of(token)}"]\n' if password else ""
    page = serve(nowhere, people, token if password else "")
    browser.look()
    if password:
        browser.open(f"http://me:{token}@127.0.0.1:{page.port}/")
    else:
        browser.open(page.url)
    browser.until(lambda: "ealthy" in headline(browser))
    form = browser.script("return document.querySelector('input[name=token]')?.value ?? 'none'")
    for target, fields in (
        ("/page/decide", f"<input name=token value='{form}'><input name=do value=retry><input name=id value=x>"),
        ("/publish/orders/new", "<input name=a value=b>"),
    ):
        _Evil.target, _Evil.fields = page.url + target, fields
        browser.open(f"http://127.0.0.1:{evil.server_address[1]}/")
        browser.until(lambda: "Not allowed" in browser.driver.page_source)
    browser.open("about:blank")
    browser.complaints()
    assert page.get("/status")["books"]["accepted"] == 0


def test_a_token_is_asked_for_and_then_everything_works(browser: Chromium, serve: Serve, nowhere: str) -> None:
    token = new_token()
    page = serve(nowhere, f'[[principal]]\nname = "operator"\noperate = true\ntokens = ["{hash_of(token)}"]\n')
    browser.look()
    browser.open(f"http://me:{token}@127.0.0.1:{page.port}/")
    browser.until(lambda: "ealthy" in headline(browser))
    browser.until(lambda: len(browser.all("#charts canvas")) == 4, "the charts")
    before = browser.text("#fresh")
    browser.until(lambda: browser.text("#fresh") != before, "something fresh")
    assert browser.complaints() == []
    browser.open("about:blank")
