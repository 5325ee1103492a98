"""A real daemon and a real RabbitMQ: traces go in by every way in, and come out at a collector and at the consumer."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pika

from tests.collector import Collector, collecting
from tests.operating import Values, promtool
from tests.rabbitmq import free_ports
from tests.service.conftest import Run
from tests.service.process import Program, until
from tests.spans import PARENT_ID, SAMPLED, TRACE_ID

CONFIG = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
min_free = 0
[http]
listen = ["tcp:{port}:interface=127.0.0.1"]
[lines]
listen = ["unix:lines.sock"]
[directory]
path = "in"
[tracing]
endpoint = "{endpoint}"
ratio = 0
service_name = "shop"
headers_file = "headers"
timeout = "2s"
"""


#: Of messages that bring their own, each another one: what is published together in one context is one span.
OWN = {
    name: {"traceparent": f"00-{TRACE_ID}-000000000000000{number}-01", "tracestate": "congo=t61rcWkgMzE"}
    for number, name in enumerate(("own", "lines", "directory"), 1)
}


class Traced:
    """A daemon with tracing, and a queue ``q``."""

    def __init__(self, run: Run, directory: Path, url: str, endpoint: str, **environment: str) -> None:
        self.directory, self.url = directory, url
        (self.port,) = free_ports(1)
        (directory / "headers").write_text("Authorization: Bearer s3cret\n")
        (directory / "pubd.toml").write_text(CONFIG.format(url=url, port=self.port, endpoint=endpoint))
        environment = {"OTEL_BSP_SCHEDULE_DELAY": "100", **environment}
        self.program: Program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml", **environment)
        self.program.says(f"listening on tcp:{self.port}")
        until(lambda: self.ask("GET", "/readyz")[0] == 200, what=lambda: self.program.output)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        kind = {"Content-Type": "application/x-ndjson" if isinstance(body, list) else "application/json"}
        text = "".join(f"{json.dumps(each)}\n" for each in body) if isinstance(body, list) else json.dumps(body)
        connection.request(method, path, text if body is not None else None, {**kind, **headers})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def over_lines(self, message: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(self.directory / "lines.sock"))
            client.sendall(json.dumps(message).encode() + b"\n")
            return dict(json.loads(client.makefile("rb").readline()))

    def drop_in(self, message: dict[str, Any]) -> None:
        (self.directory / "in/tmp/m.json").write_text(json.dumps(message))
        os.rename(self.directory / "in/tmp/m.json", self.directory / "in/new/m.json")

    def stop(self) -> str:
        self.program.signal(signal.SIGTERM)
        assert self.program.ends() == 0
        return self.program.output


def message(message_id: str, key: str = "q", **more: Any) -> dict[str, Any]:
    return {"exchange": "", "routing_key": key, "body": "s3cret-body", "message_id": message_id, **more}


def arrived(url: str, count: int) -> dict[str, dict[str, Any]]:
    """The headers of so many messages in ``q``, by message_id."""
    found: dict[str, dict[str, Any]] = {}
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        for _, properties, _ in channel.consume("q", auto_ack=True, inactivity_timeout=20):
            assert properties is not None, f"only {list(found)} came"
            found[properties.message_id] = properties.headers or {}
            if len(found) == count:
                break
        channel.cancel()
    return found


def declare(url: str) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        connection.channel().queue_declare("q")


def published(collector: Collector, message_id: str) -> bool:
    return any(each.facts.get("messaging.message.id") == message_id for each in collector.named("publish q"))


def test_traces_go_through_from_each_way_in_to_the_consumer_and_the_collector(
    run: Run, url: str, tmp_path: Path
) -> None:
    declare(url)
    with collecting() as collector:
        daemon = Traced(run, tmp_path, url, collector.url)
        assert daemon.ask("POST", "/messages", message("http"), **SAMPLED)[0] == 202
        assert daemon.ask("POST", "/messages", [message("n1"), message("n2")], **SAMPLED)[0] == 200
        assert daemon.ask("POST", "/messages", [message("own", headers=OWN["own"])])[0] == 200
        assert daemon.over_lines(message("lines", headers=OWN["lines"]))["state"] == "stored"
        daemon.drop_in(message("directory", headers=OWN["directory"]))
        assert daemon.ask("POST", "/messages", message("nobody", "nowhere"), **SAMPLED)[0] == 202
        assert daemon.ask("POST", "/messages", message("untraced"))[0] == 202
        found = arrived(url, 7)
        until(lambda: collector.named("publish nowhere"), what=lambda: daemon.program.output)
        # What is left goes out with the stop.
        output = daemon.stop()

    created = {each.facts["messaging.message.id"]: each for each in collector.named("create q")}
    assert set(created) == {"http"}
    assert (created["http"].trace_id, created["http"].parent_id) == (TRACE_ID, PARENT_ID)
    assert found["http"] == {
        "traceparent": f"00-{TRACE_ID}-{created['http'].span_id}-01",
        "tracestate": SAMPLED["tracestate"],
    }
    (batch,) = collector.named("send q")
    assert (batch.parent_id, batch.facts["messaging.batch.message_count"]) == (PARENT_ID, 2)
    assert found["n1"] == found["n2"] == found["http"] | {"traceparent": f"00-{TRACE_ID}-{batch.span_id}-01"}
    for name, own in OWN.items():
        assert found[name] == own
        (span,) = (each for each in collector.named("publish q") if each.facts.get("messaging.message.id") == name)
        assert f"{span.trace_id}-{span.parent_id}" in own["traceparent"]
        assert (span.status, span.facts["pubd.outcome"]) == (0, "confirmed")
        assert span.facts["server.address"] == "127.0.0.1"
        assert "127.0.0.1" in span.facts["pubd.node"]
        assert 0 < span.seconds < 60
    (returned,) = collector.named("publish nowhere")
    assert (returned.status, returned.facts["error.type"], returned.facts["pubd.state"]) == (2, "returned", "parked")
    assert found["untraced"] == {}
    assert not published(collector, "untraced")
    assert returned.resource["service.name"] == "shop"
    assert all(each["authorization"] == "Bearer s3cret" for each in collector.headers)
    assert "s3cret" not in output + str(collector.spans)


def test_a_trace_goes_on_after_a_restart(run: Run, url: str, nowhere: str, tmp_path: Path) -> None:
    declare(url)
    with collecting() as collector:
        daemon = Traced(run, tmp_path, nowhere, collector.url)
        assert daemon.ask("POST", "/messages", message("m"), **SAMPLED)[0] == 202
        daemon.stop()
        (created,) = collector.named("create q")
        daemon = Traced(run, tmp_path, url, collector.url)
        assert arrived(url, 1)["m"]["traceparent"] == f"00-{TRACE_ID}-{created.span_id}-01"
        daemon.stop()
    (span,) = collector.named("publish q")
    assert span.parent_id == created.span_id
    assert span.resource["service.instance.id"] != created.resource["service.instance.id"]


def test_a_collector_that_is_away_is_said_once_and_stops_nothing(run: Run, url: str, tmp_path: Path) -> None:
    declare(url)
    (port,) = free_ports(1)
    daemon = Traced(run, tmp_path, url, f"http://127.0.0.1:{port}/v1/traces", OTEL_BSP_MAX_QUEUE_SIZE="512")
    for number in range(2000):
        # Many more than the queue takes.
        if number % 500 == 0:
            assert daemon.ask("POST", "/messages", message(f"m{number}"), **SAMPLED)[0] == 202
    assert len(arrived(url, 4)) == 4
    until(lambda: daemon.program.lines("spans do not get to"), 60, lambda: daemon.program.output)
    with collecting(port) as collector:
        assert daemon.ask("POST", "/messages", message("back"), **SAMPLED)[0] == 202
        until(lambda: published(collector, "back"), 60, lambda: daemon.program.output)
        until(lambda: daemon.program.lines("spans get to"), 60, lambda: daemon.program.output)
        values = Values(daemon.ask("GET", "/metrics")[1].decode())
        assert promtool("check", "metrics", text=values.text) == (0, "")
        assert values("pubd_trace_spans_total", state="made") == 10
        assert (values("pubd_trace_spans_total", state="failed") or 0) > 0
        assert (values("pubd_trace_spans_total", state="exported") or 0) > 0
        daemon.stop()
    output = daemon.program.output
    assert len(daemon.program.lines("spans do not get to")) == 1
    # Nothing of the library's own, and nothing that is no line of the log.
    assert all(json.loads(line)["namespace"] for line in output.splitlines())
    assert "s3cret" not in output


def test_a_collector_that_never_answers_does_not_hold_up_the_end(run: Run, url: str, tmp_path: Path) -> None:
    declare(url)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        daemon = Traced(run, tmp_path, url, f"http://127.0.0.1:{port}/v1/traces")
        config = tmp_path / "pubd.toml"
        config.write_text(config.read_text().replace('"2s"', '"600s"'))
        daemon.stop()
        daemon.program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
        until(
            lambda: (
                f"listening on tcp:{daemon.port}" in daemon.program.output and daemon.ask("GET", "/readyz")[0] == 200
            )
        )
        assert daemon.ask("POST", "/messages", message("m"), **SAMPLED)[0] == 202
        assert len(arrived(url, 1)) == 1
        output = daemon.stop()
    assert "the last spans did not get to" in output


def test_in_the_background_spans_get_out_as_well(run: Run, url: str, tmp_path: Path) -> None:
    """twistd forks then, and no thread that was there before goes along."""
    declare(url)
    with collecting() as collector:
        daemon = Traced(run, tmp_path, url, collector.url)
        daemon.stop()
        forked = run(
            *("twistd", "--pidfile=pid", "--logfile=log", "pubd", "--config", "pubd.toml"),
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        assert forked.ends() == 0
        pid = int((tmp_path / "pid").read_text())
        try:
            until(lambda: f"listening on tcp:{daemon.port}" in (tmp_path / "log").read_text())
            until(lambda: daemon.ask("GET", "/readyz")[0] == 200)
            assert daemon.ask("POST", "/messages", message("m"), **SAMPLED)[0] == 202
            until(lambda: published(collector, "m"), what=lambda: (tmp_path / "log").read_text())
        finally:
            os.kill(pid, signal.SIGTERM)
        until(lambda: not (tmp_path / "pid").exists())


WITHOUT = """\
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_where_it_is_not_installed_that_is_said_and_only_where_it_is_asked_for(
    run: Run, nowhere: str, tmp_path: Path
) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent/sitecustomize.py").write_text(WITHOUT)
    path = f"{tmp_path}/absent:{Path(__file__).parents[2]}"
    text = f'[broker]\nurls = ["{nowhere}"]\n[spool]\nurl = "memory:"\n'
    (tmp_path / "pubd.toml").write_text(text)
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml", PYTHONPATH=path)
    program.says("connection refused")
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    (tmp_path / "pubd.toml").write_text(text + '[tracing]\nendpoint = "http://localhost:4318/v1/traces"\n')
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml", PYTHONPATH=path)
    assert program.ends() == os.EX_CONFIG
    program.says(
        "pubd.toml:6: [tracing] endpoint: takes OpenTelemetry, which is not installed; install pubd[otel], "
        "or remove the table"
    )
    assert "Traceback" not in program.output


def test_it_is_imported_only_where_it_is_configured(run: Run, nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "pubd.toml").write_text(f'[broker]\nurls = ["{nowhere}"]\n[spool]\nurl = "memory:"\n')
    program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml", PYTHONPROFILEIMPORTTIME="1")
    program.says("connection refused")
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    assert "pubd.publisher" in program.output
    assert "opentelemetry" not in program.output
