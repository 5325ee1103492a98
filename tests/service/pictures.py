"""The pictures of docs/page.rst: ``python -m tests.service.pictures [SCENE...]`` makes them in docs/images.

Takes about four minutes: charts want to have something on them.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chromium import DESK, PHONE, Chromium
from tests.integration.spooled import bind, declare
from tests.rabbitmq import Node, free_ports
from tests.service.process import Program, until
from tests.service.served_page import EXCHANGES, ServedPage, fill

MILLION = 1_000_000
Shot = Callable[..., None]


@contextmanager
def serving(broker: str, *, messages: int = 0, parked: int = 0) -> Iterator[ServedPage]:
    """A daemon of its own, with so many messages."""
    programs: list[Program] = []

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def run(*command: Any) -> Program:
            programs.append(Program(directory, command))
            return programs[-1]

        if messages:
            fill(directory / "pubd.db", messages, parked=parked)
        yield ServedPage(run, directory, broker)
        for program in programs:
            program.interrupt()
            program.ends()


@contextmanager
def traffic(page: ServedPage, *keys: str) -> Iterator[None]:
    """Messages for ``orders``, until the end."""
    over = threading.Event()

    def go() -> None:
        n = 0
        while not over.wait(0.01):
            page.submit(exchange="orders", routing_key=keys[n % len(keys)], message_id=f"order-{n}", type="order")
            n += 1

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def seen(page: ServedPage, chromium: Chromium, path: Path, **look: Any) -> None:
    """What is in the window, when its charts are drawn."""
    chromium.look(**look)
    chromium.open(page.url)
    chromium.until(lambda: len(chromium.all("#charts canvas")) == 4, "the charts")
    time.sleep(1)
    chromium.picture(path)
    print(path, f"{path.stat().st_size:,} bytes")


def nothing(node: Node, shot: Shot) -> None:
    """Just installed."""
    with serving(node.url) as page:
        shot(page, "nothing", size=DESK)


def busy(node: Node, shot: Shot) -> None:
    """Healthy, after a while in which it was blocked, with what no queue got."""
    declare(node.url, "orders", "direct")
    bind(node.url, "orders", "new-orders", "new", **{"x-max-length": 1000})
    with serving(node.url) as page, traffic(page, *["new"] * 997, *["lost"] * 3):
        time.sleep(40)
        node.set_memory_alarm(True)
        time.sleep(15)
        node.set_memory_alarm(False)
        time.sleep(60)
        shot(page, "busy", size=DESK)


def blocked(node: Node, shot: Shot) -> None:
    """With a million messages, and on a phone."""
    for n in range(EXCHANGES):
        # RabbitMQ says that it blocks when something is published.
        declare(node.url, f"exchange-{n}", "direct")
    node.set_memory_alarm(True)
    with serving(node.url, messages=MILLION, parked=30_000) as page:
        until(lambda: page.get("/status")["link"]["state"] == "blocked")
        time.sleep(60)
        shot(page, "blocked", size=DESK)
        shot(page, "phone", size=PHONE, dark=True)
    node.set_memory_alarm(False)


def broken(_: Node, shot: Shot) -> None:
    """There is no RabbitMQ."""
    (port,) = free_ports(1)
    with serving(f"amqp://pubd:secret@127.0.0.1:{port}/%2F") as page, traffic(page, "new"):
        time.sleep(45)
        shot(page, "broken", size=DESK)


SCENES = {scene.__name__: scene for scene in (nothing, busy, blocked, broken)}


def main(directory: Path, names: Sequence[str]) -> None:
    directory.mkdir(exist_ok=True)
    node = Node()
    with tempfile.TemporaryDirectory() as profile:
        chromium = Chromium(Path(profile))

        def shot(page: ServedPage, name: str, **look: Any) -> None:
            seen(page, chromium, directory / f"page-{name}.png", **look)

        try:
            if names != ["broken"]:
                node.start()
            for name in names:
                SCENES[name](node, shot)
        finally:
            chromium.close()
            node.remove()


if __name__ == "__main__":
    main(Path(__file__).parents[2] / "docs" / "images", sys.argv[1:] or [*SCENES])
