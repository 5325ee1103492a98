"""`script/run` against a given broker, in the environment that is there."""

from __future__ import annotations

import signal
from pathlib import Path
from urllib.request import urlopen

from tests.rabbitmq import free_ports
from tests.service.conftest import Run


def test_it_publishes_counts_and_ends(run: Run, url: str, repository: Path) -> None:
    program = run(repository / "script/run", "--count", "2", "--interval", "0.1", PUBD_BROKER_URL=url)
    assert program.ends(60) == 0
    program.says("using the broker of PUBD_BROKER_URL: ", "2 were acked", "Server Shut Down")
    assert "guest:guest" not in program.output


def test_ctrl_c_ends_it_cleanly(run: Run, url: str, repository: Path) -> None:
    program = run(repository / "script/run", "--interval", "0.1", PUBD_BROKER_URL=url)
    program.says("acked", seconds=60)
    program.interrupt()
    assert program.ends() == 0
    program.says(f"{signal.SIGINT.name}: stopping", "every accepted message is settled")
    assert "Traceback" not in program.output


def test_served_it_takes_a_message_of_ones_own_and_shows_its_page(
    run: Run, url: str, repository: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    listen = f"tcp:{port}:interface=127.0.0.1"
    serve = repository / "script/run", "serve"
    program = run(*serve, PUBD_BROKER_URL=url, PUBD_HTTP_LISTEN=listen, PUBD_SPOOL_URL=f"sqlite:///{tmp_path}/db")
    program.says("pubd send -e message -r example.text -b hello --wait", "listening on", seconds=60)
    sent = run(
        "pubd", "send", "-e", "message", "-r", "example.text", "-b", "hello", "--wait", "-s", f"http://127.0.0.1:{port}"
    )
    assert sent.ends() == 0, sent.output
    status = run("pubd", "status", "-s", f"http://127.0.0.1:{port}")
    assert status.ends() == 0, status.output
    status.says("1 accepted = 1 confirmed")
    with urlopen(f"http://127.0.0.1:{port}/") as answer:
        assert b"healthy" in answer.read()
    program.interrupt()
    assert program.ends() == 0


def test_the_readme_says_what_to_type_for_that(repository: Path) -> None:
    readme = (repository / "README.rst").read_text()
    assert "    script/run serve " in readme
    assert "    .venv/bin/pubd send -e message -r example.text -b 'my first message' --wait\n" in readme
    assert "    .venv/bin/pubd status\n" in readme
