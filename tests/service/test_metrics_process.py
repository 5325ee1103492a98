"""A running pubd shows its metrics and its health to whoever may see them."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from pubd.access.tokens import hash_of, new_token
from tests.operating import Values, promtool
from tests.rabbitmq import free_ports
from tests.service.conftest import Run
from tests.service.process import Program, until

CONFIG = """\
[broker]
urls = ["{url}"]
[spool]
url = "sqlite:///pubd.db"
max_bytes = "{max_bytes}"
min_free = 0
[delivery]
drain_timeout = 0
[http]
listen = ["tcp:{port}:interface=127.0.0.1"]
{more}
"""


class Daemon:
    """A pubd with an HTTP port."""

    def __init__(self, run: Run, directory: Path, url: str, *, more: str = "", max_bytes: str = "1MiB") -> None:
        (self.port,) = free_ports(1)
        text = CONFIG.format(url=url, port=self.port, more=more, max_bytes=max_bytes)
        (directory / "pubd.toml").write_text(text)
        self.program: Program = run("twistd", "-n", "--pidfile=", "pubd", "--config", "pubd.toml")
        self.program.says("listening on")
        # The spool is opened meanwhile.
        until(lambda: self.ask("/readyz")[0] == 200, what=lambda: self.program.output)

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            given["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), given)
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def publish(self, exchange: str, key: str) -> int:
        message = {"exchange": exchange, "routing_key": key, "body": "s3cret-body"}
        return self.ask("/messages", "POST", message)[0]

    def values(self, **headers: str) -> Values:
        status, _, body = self.ask("/metrics", **headers)
        assert status == 200
        return Values(body.decode())

    def reasons(self, path: str) -> list[str]:
        return [reason["type"] for reason in json.loads(self.ask(path)[2])["reasons"]]


def test_what_happened_is_in_the_metrics(run: Run, url: str, tmp_path: Path) -> None:
    daemon = Daemon(run, tmp_path, url)
    until(lambda: daemon.reasons("/publishz") == [], what=lambda: daemon.program.output)
    # The default exchange always is there; nobody has the first queue.
    assert daemon.publish("", "nobody") == 202
    assert daemon.publish("missing", "k") == 202
    until(lambda: daemon.reasons("/publishz") == ["exchange-refused"])
    until(lambda: daemon.values()("pubd_messages", state="parked") == 1)
    values = daemon.values()
    assert values("pubd_accepted_messages_total", exchange="amq.default") == 1
    assert values("pubd_accepted_messages_total", exchange="missing") == 1
    assert values("pubd_principal_accepted_messages_total", principal="local") == 2
    assert values("pubd_deliveries_total", exchange="amq.default", outcome="returned") == 1
    assert values("pubd_books_accepted_total") == 2
    assert values("pubd_link_state", state="ready") == 1
    assert (values("pubd_can_accept"), values("pubd_can_publish")) == (1, 0)
    assert (values("pubd_commit_seconds_count") or 0) >= 2
    assert (values("pubd_oldest_ready_age_seconds") or 0) > 0
    assert (values("pubd_spool_free_bytes") or 0) > 0
    assert (values("pubd_intake_connections", intake="http") or 0) >= 1
    assert values("pubd_http_answers_total", code="202") == 2
    assert promtool("check", "metrics", text=values.text) == (0, "")
    assert "s3cret" not in values.text
    # Nothing of the messages, and nothing for each of them.
    assert "s3cret" not in daemon.program.output
    assert "guest:guest" not in daemon.program.output


def test_head_has_the_same_head_and_no_body(run: Run, nowhere: str, tmp_path: Path) -> None:
    daemon = Daemon(run, tmp_path, nowhere)
    for path in ("/metrics", "/livez", "/readyz", "/publishz"):
        got, headers, _ = daemon.ask(path)
        status, told, body = daemon.ask(path, "HEAD")
        assert (status, body) == (got, b"")
        assert told["content-type"] == headers["content-type"]
        assert int(told["content-length"]) > 0


def test_without_rabbitmq_it_is_ready_until_the_spool_is_full(run: Run, nowhere: str, tmp_path: Path) -> None:
    daemon = Daemon(run, tmp_path, nowhere, max_bytes="1000B")
    assert daemon.ask("/livez")[0] == 200
    assert daemon.ask("/readyz")[0] == 200
    assert daemon.ask("/publishz")[0] == 503
    while daemon.publish("e", "k") == 202:
        pass
    status, headers, _ = daemon.ask("/readyz")
    assert (status, headers["retry-after"]) == (503, "5")
    assert daemon.reasons("/readyz") == ["spool-full"]
    values = daemon.values()
    assert values("pubd_can_accept") == 0
    assert values("pubd_spool_max_bytes") == 1000
    assert daemon.ask("/livez")[0] == 200


def test_where_there_are_principals_metrics_take_one(run: Run, nowhere: str, tmp_path: Path) -> None:
    token = new_token()
    more = f'[[principal]]\nname = "prometheus"\ntokens = ["{hash_of(token)}"]\n'
    daemon = Daemon(run, tmp_path, nowhere, more=more)
    assert [daemon.ask(path)[0] for path in ("/metrics", "/publishz", "/livez", "/readyz")] == [401, 401, 200, 200]
    assert daemon.values(Authorization=f"Bearer {token}")("pubd_can_accept") == 1
    assert daemon.ask("/publishz", Authorization=f"Bearer {token}")[0] == 503
    # It has no grants, and does not operate.
    assert daemon.ask("/messages", Authorization=f"Bearer {token}")[0] == 403
