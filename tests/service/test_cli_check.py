"""`pubd check --probe` against a real RabbitMQ: what is well, what is not, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pika
import pytest

from tests.rabbitmq import Node, free_ports
from tests.service.process import BIN
from tests.service.running import Unique

CHECK = (BIN / "pubd", "check", "--probe", "--timeout", "20s")


@attrs.frozen
class Bench:
    """A user of its own in a virtual host with exchange ``x`` (topic), whose queue gets everything."""

    node: Node
    vhost: str
    user: str
    directory: Path

    @property
    def url(self) -> str:
        return f"amqp://{self.user}:s3cret@{self.node.host}:{self.node.port}/{self.vhost}"

    def check(self, *lines: str, url: str | None = None) -> tuple[int, dict[str, dict[str, Any]], str]:
        """Exit code, findings by what was looked at, and stderr; ``lines`` go into pubd.toml."""
        config = self.directory / "pubd.toml"
        spool = f'url = "sqlite:///{self.directory}/pubd.db"'
        urls = json.dumps([url] if url is not None else [self.url])
        config.write_text("\n".join([f"[broker]\nurls = {urls}", "[spool]", spool, *lines]))
        done = subprocess.run([*CHECK, "--json", config], capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        assert "s3cret" not in done.stdout + done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return done.returncode, {each["what"]: each for each in found}, done.stderr


@pytest.fixture
def bench(shared_node: Node, vhost: str, unique: Unique, tmp_path: Path) -> Iterator[Bench]:
    user = unique("user")
    shared_node.add_user(user, "s3cret")
    shared_node.set_permissions(user, vhost)
    bench = Bench(shared_node, vhost, user, tmp_path)
    with pika.BlockingConnection(pika.URLParameters(bench.url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("x", "topic", durable=True)
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "x", "#")
    yield bench
    shared_node.ctl("delete_user", user)


def test_all_is_well_and_nothing_was_published_or_declared(bench: Bench) -> None:
    code, found, errors = bench.check(
        *("[[exchange]]", 'name = "x"', 'type = "topic"'),
        *("[[queue]]", 'name = "q"'),
        *("[[queue]]", 'name = "later"'),
        *("[[binding]]", 'exchange = "x"', 'queue = "q"', 'routing_key = "#"'),
        *("[[schedule]]", 'name = "s"', 'every = "1h"', 'exchange = "amq.fanout"', 'routing_key = "k"', 'body = "b"'),
    )
    assert code == 0, (found, errors)
    broker = found[f"broker {bench.url.replace('s3cret', '***')}"]
    assert broker["detail"].startswith("RabbitMQ 3.")
    assert found["exchange 'x' (topic)"]["result"] == "ok"
    assert found["queue 'q'"]["result"] == "ok"
    assert found["queue 'later'"]["result"] == "untested"
    assert "it is not there yet" in found["queue 'later'"]["detail"]
    assert found["publishing to x"]["result"] == "ok"
    assert found["publishing to amq.fanout"]["detail"] == "permitted, with key 'k'"
    assert found["1 binding(s)"]["result"] == "untested"
    assert found[f"spool {bench.directory}/pubd.db"]["detail"].startswith("can be made")
    assert bench.node.list_queues(bench.vhost) == {"q": 0}, "no message, no queue"
    assert [each.name for each in bench.directory.iterdir()] == ["pubd.toml"]


def test_missing_permissions_are_found_without_a_message(bench: Bench) -> None:
    bench.node.set_permissions(bench.user, bench.vhost, configure="^$", write="^y$")
    code, found, errors = bench.check(
        *("[[exchange]]", 'name = "x"', 'type = "topic"', "passive = true"),
        *("[[exchange]]", 'name = "amq.direct"', 'type = "direct"'),
        *(
            "[[principal]]",
            'name = "shop"',
            'grants = [{ exchange = "gone" }, { exchange = "some-*" }]',
            'users = ["root"]',
        ),
    )
    assert code == 1, (found, errors)
    refused = found["publishing to x"]
    assert (refused["result"], "403" in refused["detail"]) == ("fail", True)
    assert "rabbitmqctl set_permissions" in refused["fix"]
    assert found["exchange 'x' (passive)"]["result"] == "ok"
    assert found["exchange 'amq.direct' (direct)"]["result"] == "fail"
    assert found["publishing to gone"]["result"] == "fail"
    assert "some-*" in found["exchanges"]["detail"]
    assert "are not well; see what to do below each" in errors
    assert bench.node.list_queues(bench.vhost) == {"q": 0}


def test_an_exchange_that_is_not_there_or_is_another_is_found(bench: Bench) -> None:
    code, found, _ = bench.check(
        *("[[exchange]]", 'name = "x"', 'type = "direct"'),
        *("[[exchange]]", 'name = "nowhere"', "passive = true"),
        *("[[schedule]]", 'name = "s"', 'every = "1h"', 'exchange = "gone"', 'routing_key = "k"', 'body = "b"'),
    )
    assert code == 1
    assert "406" in found["exchange 'x' (direct)"]["detail"]
    assert "make pubd.toml say what RabbitMQ has" in found["exchange 'x' (direct)"]["fix"]
    assert "404" in found["exchange 'nowhere' (passive)"]["detail"]
    assert "declare the exchange" in found["publishing to gone"]["fix"]


def test_topic_permissions_are_told_apart(bench: Bench) -> None:
    bench.node.ctl("set_topic_permissions", "-p", bench.vhost, bench.user, "x", r"^good\.", ".*")
    code, found, _ = bench.check(*("[[exchange]]", 'name = "x"', 'type = "topic"'))
    assert code == 0
    assert found["publishing to x"]["result"] == "untested"
    code, found, _ = bench.check(
        *("[[schedule]]", 'name = "s"', 'every = "1h"', 'exchange = "x"', 'routing_key = "bad.k"', 'body = "b"')
    )
    assert (code, found["publishing to x"]["result"]) == (1, "fail")


@pytest.mark.parametrize(
    ("change", "words", "fix"),
    [
        (("s3cret", "wr0ng"), "403", "correct the user name, password"),
        (("/pubd-test-vhost", "/no-such"), "530", "correct the vhost in the URL"),
    ],
)
def test_a_broker_that_does_not_take_us_says_why(bench: Bench, change: tuple[str, str], words: str, fix: str) -> None:
    code, found, _ = bench.check(url=bench.url.replace(*change))
    assert code == 1
    (broker,) = [each for what, each in found.items() if what.startswith("broker")]
    assert broker["result"] == "fail"
    assert words in broker["detail"]
    assert fix in broker["fix"]


def test_nobody_listens_and_the_next_broker_is_looked_at(bench: Bench) -> None:
    (port,) = free_ports(1)
    config = bench.directory / "pubd.toml"
    urls = json.dumps([f"amqp://guest:guest@127.0.0.1:{port}/%2F", bench.url])
    config.write_text(f'[broker]\nurls = {urls}\n[spool]\nurl = "memory:"\n[[exchange]]\nname = "x"\ntype = "topic"\n')
    done = subprocess.run([*CHECK, config], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == f"OK    {config}"
    assert any(line.startswith("FAIL  broker") and str(port) in line for line in lines)
    assert any(line.startswith("OK    publishing to x") for line in lines)
    assert "-> " in done.stdout
    assert "1 of these is not well" in done.stderr


def test_tls_is_looked_at_as_pubd_does_it(bench: Bench) -> None:
    code, found, _ = bench.check(url=bench.url.replace("amqp://", "amqps://"))
    assert code == 1
    (broker,) = [each for what, each in found.items() if what.startswith("broker")]
    assert "TLS" in broker["detail"]


def test_the_spool_and_its_directory_are_looked_at(bench: Bench) -> None:
    config = bench.directory / "pubd.toml"
    config.write_text(f'[broker]\nurls = ["{bench.url}"]\n[spool]\nurl = "sqlite:///{bench.directory}/no/pubd.db"\n')
    done = subprocess.run([*CHECK, config], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot be written: No such file or directory" in " ".join(done.stdout.split())
    (bench.directory / "pubd.db").write_text("this is no database, whatever else it may be" * 100)
    code, found, _ = bench.check()
    assert code == 1
    assert found[f"spool {bench.directory}/pubd.db"]["result"] == "fail"


def test_a_disk_that_is_full_or_too_small_is_found(bench: Bench) -> None:
    code, found, _ = bench.check('min_free = "9999TiB"')
    assert (code, found[f"disk of {bench.directory}"]["result"]) == (1, "fail")
    assert "kept in reserve" in found[f"disk of {bench.directory}"]["detail"]


def test_a_wrong_configuration_is_looked_at_no_further(bench: Bench) -> None:
    code, found, errors = bench.check("[spol]")
    assert (code, found) == (78, {})
    assert "spol" in errors


def test_interrupted_it_says_so(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = bench.directory / "pubd.toml"
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/%2F"
        config.write_text(f'[broker]\nurls = ["{url}"]\n[spool]\nurl = "memory:"\n')
        process = subprocess.Popen([*CHECK, config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(20)
        connection, _ = silent.accept()
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        connection.close()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
