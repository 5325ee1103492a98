"""Publishers inside other people's applications: the example of the documentation, and two brokers in one."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import pika

from tests.rabbitmq import Node
from tests.service.conftest import Run
from tests.service.process import until

TWO = """
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred

from pubd import Message, Publisher
from pubd.amqp.topology import Queue, Topology

application = Application("two")


async def once(publisher, name):
    receipt = await publisher.submit(Message(exchange="", routing_key="q", body=name.encode()))
    await receipt.settled()
    print(name, "confirmed", flush=True)


for name, url in (("left", "{left}"), ("right", "{right}")):
    publisher = Publisher.from_url(url, name=name, reactor=reactor, topology=Topology(queues=[Queue(name="q")]))
    publisher.setServiceParent(application)
    reactor.callWhenRunning(lambda publisher=publisher, name=name: ensureDeferred(once(publisher, name)))
"""


def bodies(queue: str, url: str) -> list[bytes]:
    """What is in the queue; it stays there."""
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel, taken = connection.channel(), []
        while (body := channel.basic_get(queue)[2]) is not None:
            taken.append(body)
        return taken


def test_the_example_of_the_documentation_runs(run: Run, url: str, repository: Path, tmp_path: Path) -> None:
    text = (repository / "docs/examples/compose.py").read_text()
    assert "amqp://guest:guest@localhost:5672/%2F" in text
    (tmp_path / "compose.py").write_text(text.replace("amqp://guest:guest@localhost:5672/%2F", url))
    # What it relies on: `twistd -n pubd` has declared.
    declared = run("twistd", "-n", "--pidfile=", "pubd", "--url", url, "--count", "1", "--message", "first")
    assert declared.ends() == 0
    program = run("twistd", "-n", "--pidfile=", "-y", tmp_path / "compose.py")
    program.says("Confirmed(")
    program.signal(signal.SIGTERM)
    # An application of its own keeps Twisted's way to end: by the signal, after a clean stop.
    assert program.ends() == -signal.SIGTERM
    program.says("every accepted message is settled")
    taken = bodies("text", url)
    assert taken[0] == b"first"
    assert set(taken[1:]) == {b"1 teapot"}


def test_two_publishers_to_two_brokers_live_in_one_application(
    run: Run, url: str, own_node: Node, tmp_path: Path
) -> None:
    (tmp_path / "two.py").write_text(TWO.format(left=url, right=own_node.url))
    program = run("twistd", "-n", "--pidfile=", "-y", tmp_path / "two.py")
    program.says("left confirmed", "right confirmed")
    own_node.close_all_connections("only the right one")
    program.says("only the right one")
    until(lambda: len(program.lines("connected to")) == 3, what=lambda: program.output)
    program.signal(signal.SIGTERM)
    assert program.ends() == -signal.SIGTERM
    assert bodies("q", url) == [b"left"]
    assert bodies("q", own_node.url) == [b"right"]
