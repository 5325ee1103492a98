"""The status page on a scripted broker, read as a browser reads it: elements, texts and forms."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import attrs

from pubd.access import Access
from pubd.config import SpoolConfig
from pubd.intake.http.decisions import Decisions
from pubd.intake.http.page.routes import page_routes
from pubd.intake.http.route import Route
from pubd.intake.http.status import SpoolFacts, Status, WayIn
from pubd.intake.http.waits import Waits
from pubd.operating import Operating
from pubd.spool.base import Limits
from tests.rig import Rig
from tests.web import Bench, Got, get, post

FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
#: Elements that have no end tag.
_VOID = frozenset(("meta", "link", "input", "br"))
#: Elements that nothing but the page's own head may have.
ACTIVE = frozenset(("script", "style", "iframe", "object", "embed", "base", "svg", "img"))


@attrs.frozen(kw_only=True)
class Element:
    tag: str
    attributes: dict[str, str]


class Html(HTMLParser):
    """A page; raises where its tags do not fit into each other."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[Element] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag=tag, attributes={name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """The attributes of each element of this kind with these attributes."""
        return [
            each.attributes
            for each in self.elements
            if each.tag == tag and attributes.items() <= each.attributes.items()
        ]

    def value(self, name: str) -> str:
        """Of the first field of this name."""
        return self.all("input", name=name)[0]["value"]

    def fields(self, *names: str) -> list[tuple[str, str]]:
        """Hidden fields of these names, as a browser would send them back."""
        return [
            (each["name"], each["value"])
            for each in self.all("input", type="hidden")
            if each.get("name") in names or not names
        ]


class PageBench(Bench):
    """A bench with the page on it; its daemon's time and the rig's go together."""

    def __init__(self, *, rig: Rig | None = None, access: Access | None = None, limits: Limits | None = None) -> None:
        rig = rig or Rig().start()
        self.limits = limits or Limits(max_bytes=1 << 20)
        self.operating = Operating(
            clock=rig.network,
            publisher=rig.publisher,
            spool=SpoolConfig(url="memory:", path=None, limits=self.limits),
            intakes=(),
            wall=rig.network.seconds,
        )
        super().__init__(rig=rig, access=access, routes=self._page)

    def _page(self, _: Waits) -> Iterable[Route]:
        network = self.rig.network
        status = Status(
            publisher=self.rig.publisher,
            spool=lambda: SpoolFacts(path=None, limits=self.limits, retain=3600.0),
            ways=lambda: [WayIn(name="http", listens=["unix:/s"], connections=1)],
            look=self.operating.look,
            clock=network,
            wall=network.seconds,
        )
        return page_routes(
            status=status,
            held=self.rig.publisher,
            verdicts=Decisions(self.rig.publisher),
            history=self.operating.lately,
            clock=self.clock,
            wall=network.seconds,
            secret=b"secret",
        )

    def start(self) -> PageBench:
        """Health and history go on by themselves, from here."""
        self.operating.health.startService()
        self.operating.history.startService()
        return self

    def stop(self) -> None:
        self.operating.health.stopService()
        self.operating.history.stopService()
        self.rig.stop()

    def get(self, path: str = "/", headers: str = "") -> Got:
        (got,), _ = self.ask(get(path, headers))
        return got

    def page(self, path: str = "/", status: int = 200) -> Html:
        """A page that is there."""
        return self.read(self.get(path), status)

    def read(self, got: Got, status: int = 200) -> Html:
        """The page in an answer, which has everything that each has to have."""
        assert got.status == status, got
        assert got.headers["content-type"] == "text/html; charset=utf-8"
        policy = got.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert got.headers["x-content-type-options"] == "nosniff"
        found = Html(got.body.decode("utf-8"))
        for element in found.elements:
            assert not [name for name in element.attributes if name.startswith("on") or name == "style"], element
        scripts = [each["src"] for each in found.all("script")]
        assert scripts in ([], ["/page/uplot.js", "/page/page.js"])
        assert len([each for each in found.elements if each.tag in ACTIVE]) == len(scripts)
        return found

    def send(self, fields: Iterable[tuple[str, str]], headers: str = "Origin: http://localhost\r\n") -> Got:
        """A form, as a browser sends it."""
        (got,), _ = self.ask(post(urlencode([*fields]).encode(), path="/page/decide", headers=FORM + headers))
        return got

    def decide(self, *ids: str, **fields: Any) -> Got:
        """One with the page's token."""
        token = self.page().value("token") if "token" not in fields else fields.pop("token")
        return self.send([("token", token), *(("id", id) for id in ids), *fields.items()])

    def parked(self, *names: str, **given: Any) -> list[str]:
        """Messages that no queue gets; their ids."""
        sent = self.rig.send(*names, key="nowhere", **given)
        return [each.receipt.id for each in sent if each.receipt is not None]

    def state(self, id: str) -> str:
        found: str = self.get(f"/messages/{id}").json["state"]
        return found

    def state_as(self, id: str, headers: str) -> str:
        found: str = self.get(f"/messages/{id}", headers).json["state"]
        return found
