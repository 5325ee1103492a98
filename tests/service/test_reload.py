"""A running pubd is told of a new configuration: what is applied, what is refused, and who notices."""

from __future__ import annotations

import os
import pty
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pika
import pytest

from pubd.access.tokens import hash_of, new_token
from tests.certs import Certificates
from tests.conftest import Drained
from tests.rabbitmq import Node, free_ports
from tests.service.conftest import Run
from tests.service.listening import notify_manager
from tests.service.process import until
from tests.service.reloading import TEXT, Reloading

Drain = Callable[..., list[Drained]]
Start = Callable[..., Reloading]

ROUTE = """\
[[exchange]]
name = "x"
[[queue]]
name = "q"
[[binding]]
exchange = "x"
queue = "q"
routing_key = "k"
"""


@pytest.fixture
def text(url: str) -> str:
    """Of a pubd with HTTP and an exchange x; {port} is still to be filled in."""
    return TEXT.replace("{url}", url) + ROUTE


@pytest.fixture
def reloading(run: Run, tmp_path: Path) -> Iterator[Start]:
    """`reloading(text)`: a pubd with this configuration."""
    started: list[Reloading] = []

    def start(text: str, **environment: str) -> Reloading:
        started.append(Reloading(tmp_path, run, text, **environment))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def pubd(reloading: Start, text: str) -> Reloading:
    """It runs, and is connected."""
    return reloading(text).ready()


def confirmed(pubd: Reloading, count: int) -> None:
    """Wait until so many are, and nothing is held."""
    until(
        lambda: (books := pubd.status["books"])["confirmed"] == count and not books["held"],
        what=lambda: str(pubd.status),
    )


# What is said


def test_the_command_tells_what_changed_and_what_is_wrong(pubd: Reloading, text: str, tmp_path: Path) -> None:
    assert pubd.command() == (0, "reloaded: nothing has changed; certificates were read again\n", "")
    pubd.write(text + '[lines]\nlisten = ["unix:l.sock"]\n[[queue]]\nname = "p"\n')
    code, said, _ = pubd.command()
    assert (code, said.splitlines()) == (
        0,
        ['[[queue]] "p" is new', '[lines] listen: not listening -> ["unix:l.sock"]', "reloaded: 2 changes"],
    )
    pubd.program.says("declared queue 'p'", "2 changes")
    pubd.write(text + '[delivery]\nwindw = 5\n[[binding]]\nexchange = "x"\n')
    code, said, problems = pubd.command()
    assert (code, said) == (78, "")
    *mistakes, last = problems.splitlines()
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"{tmp_path}/pubd.toml:")
    assert last == "pubd: nothing was changed: 1 problem in the new configuration"
    pubd.program.says("reload refused: 1 problem in ", mistakes[0].partition(": ")[2])
    # What there was is in use.
    assert pubd.lines("l.sock").send("x", "k")["state"] == "stored"


@pytest.mark.parametrize(
    ("add", "words"),
    [
        ("[delivery\n", "pubd.toml:"),
        ("[lines]\nmax_lines = 1\n[directory]\npath = 1\n", "did you mean max_line?"),
        ('[lines]\nlisten = ["tls:1234:interface=127.0.0.1:certificate=none.pem:key=none.pem"]\n', "none.pem"),
        ('[lines]\nlisten = ["unix:nowhere/l.sock"]\n', "directory that does not exist"),
    ],
)
def test_a_mistake_changes_nothing(reloading: Start, url: str, add: str, words: str) -> None:
    pubd = reloading(TEXT.replace("{url}", url)).ready()
    kept = pubd.http()
    change = TEXT.replace("{url}", url).replace("[http]\n", '[http]\nmax_wait = "1s"\n')
    status, answer = pubd.reload((change if "[delivery" not in add else change.partition("[delivery]")[0]) + add)
    assert (status, answer["type"]) == (422, "invalid-configuration")
    assert words in " ".join(answer["problems"])
    # The change beside it is not made either.
    assert kept.ask("POST", "/messages?wait=confirmed&timeout=2s", {"exchange": "", "routing_key": "q"})[0] != 400
    pubd.program.says("nothing was changed")
    assert "Traceback" not in pubd.program.output


def test_an_address_that_is_taken_refuses_all_of_it(pubd: Reloading, text: str) -> None:
    (free,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, answer = pubd.reload(
            text.replace(
                'listen = ["', f'listen = ["tcp:{free}:interface=127.0.0.1", "tcp:{port}:interface=127.0.0.1", "'
            )
        )
    assert status == 422
    assert f"'tcp:{port}:interface=127.0.0.1' is in use by another process" in answer["problems"][0]
    with pytest.raises(ConnectionRefusedError):
        pubd.http(free)
    assert pubd.status["link"]["state"] == "ready"


def test_what_takes_a_restart_is_refused(pubd: Reloading, text: str) -> None:
    pubd.write(text.replace("pubd.db", "other.db"))
    code, _, problems = pubd.command()
    assert code == 78
    assert "[spool] url: cannot change" in problems
    assert "restart pubd" in problems


def test_sighup_does_the_same_and_is_no_end(pubd: Reloading, text: str) -> None:
    pubd.write(text.replace("[http]", '[lines]\nlisten = ["unix:l.sock"]\n[http]'))
    pubd.program.signal(signal.SIGHUP)
    pubd.program.says("SIGHUP: reloading", "listening on unix:l.sock", "reloaded ")
    pubd.write("nonsense")
    pubd.program.signal(signal.SIGHUP)
    pubd.program.says("reload refused: 1 problem")
    assert pubd.http().send("x", "k")[0] == 202
    pubd.program.signal(signal.SIGTERM)
    assert pubd.program.ends() == 0


def test_many_at_once_are_answered_by_one_that_began_after_them(pubd: Reloading, text: str) -> None:
    clients = [pubd.http() for _ in range(8)]
    for client in clients:
        client._connection.request("POST", "/reload")
    pubd.write(text.replace("drain_timeout = 3", "drain_timeout = 4"))
    for _ in range(20):
        pubd.program.signal(signal.SIGHUP)
    for client in clients:
        assert client._connection.getresponse().read()
    status, _ = pubd.reload()
    assert status == 200
    until(lambda: "drain_timeout: " in pubd.program.output)
    assert len(pubd.program.lines("reloaded /")) <= 29


def test_without_a_configuration_there_is_nothing_to_reload(pubd_example: Any) -> None:
    pubd_example.says("acked")
    pubd_example.signal(signal.SIGHUP)
    pubd_example.says("SIGHUP: there is nothing to reload")
    pubd_example.signal(signal.SIGTERM)
    assert pubd_example.ends() == 0


@pytest.fixture
def pubd_example(run: Run, url: str) -> Any:
    return run("twistd", "-n", "--pidfile=", "pubd", "--url", url, "--interval", "0.1")


def test_a_terminal_that_is_closed_ends_it_cleanly(tmp_path: Path, text: str) -> None:
    master, slave = pty.openpty()
    (port,) = free_ports(1)
    (tmp_path / "pubd.toml").write_text(text.replace("{port}", str(port)))
    with (tmp_path / "output").open("wb") as output:
        started = subprocess.Popen(
            [
                sys.executable,
                "-c",
                # The session whose terminal it is.
                "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
                "os.execv(sys.argv[1], sys.argv[1:])",
                Path(sys.executable).parent / "twistd",
                *("-n", "--pidfile=", "pubd", "--config", "pubd.toml"),
            ],
            stdin=slave,
            stdout=output,
            stderr=output,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    os.close(slave)
    said = tmp_path / "output"
    try:
        until(lambda: "connected to" in said.read_text(), what=said.read_text)
        started.send_signal(signal.SIGHUP)
        until(lambda: "reloaded " in said.read_text(), what=said.read_text)
        os.close(master)
        until(lambda: started.poll() is not None, what=said.read_text)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 0
    assert "the terminal was closed" in said.read_text()
    assert "every accepted message is settled" in said.read_text()


def test_a_wrong_password_is_told_at_once_and_by_the_status(pubd: Reloading, text: str, url: str) -> None:
    wrong = url.replace("@", "-wrong@")
    pubd.write(text.replace(url, wrong))
    code, said, problem = pubd.command()
    assert code == 1
    assert "reloaded: 1 change" in said
    assert "publishing still goes over the former connection; the new one: " in problem
    assert "403 ACCESS_REFUSED" in problem
    assert "-wrong" not in problem + said
    assert pubd.status["moving"]["reason"]["code"] == 403
    assert pubd.http().send("x", "k")[0] == 202
    pubd.write(text)
    code, _, problem = pubd.command()
    assert (code, problem) == (0, "")
    assert pubd.status["moving"] is None


# What becomes of each part


def test_topology_is_declared_at_once_and_what_is_gone_stays(
    pubd: Reloading, text: str, url: str, drain: Drain
) -> None:
    kept = pubd.http()
    # It waits for an exchange that is not there.
    assert kept.send("new", "k", "early")[0] == 202
    until(lambda: any(lane["state"] == "refused" for lane in pubd.status["lanes"]))
    new = ROUTE.replace('"x"', '"new"').replace('"q"', '"p"')
    status, _ = pubd.reload(text.replace(ROUTE, "") + new)
    assert status == 200
    assert (
        kept.ask("POST", "/messages?wait=confirmed", {"exchange": "new", "routing_key": "k", "body": "late"})[0] == 200
    )
    assert [each.body for each in drain("p", url, count=2)] == [b"early", b"late"]
    pubd.program.says("queue 'q' is not declared any more; RabbitMQ keeps it")
    assert kept.ask("POST", "/messages?wait=confirmed", {"exchange": "x", "routing_key": "k"})[0] == 200
    assert len(pubd.program.lines("connected to")) == 1


def test_policies_and_limits_of_the_spool(pubd: Reloading, text: str) -> None:
    kept = pubd.http()
    assert kept.ask("POST", "/messages?wait=confirmed", {"exchange": "x", "routing_key": "nobody"})[0] == 422
    drop = text.replace("[http]", '[[policy]]\nexchange = "x"\non_return = "drop"\n[http]')
    assert pubd.reload(drop)[0] == 200
    assert (
        kept.ask("POST", "/messages?wait=confirmed", {"exchange": "x", "routing_key": "nobody"})[1]["type"]
        != "returned"
    )
    assert pubd.reload(text.replace('pubd.db"', 'pubd.db"\nmax_messages = 1'))[0] == 200
    # One is parked.
    assert kept.send("x", "k")[0] == 507
    assert pubd.status["spool"]["max_messages"] == 1
    assert pubd.reload(text)[0] == 200
    assert kept.send("x", "k")[0] == 202


def test_publishing_moves_to_another_user_without_a_duplicate(
    pubd: Reloading, text: str, url: str, shared_node: Node, vhost: str, unique: Callable[..., str], drain: Drain
) -> None:
    user = unique("user")
    shared_node.add_user(user, "s3cret")
    shared_node.set_permissions(user, vhost=vhost)
    wrong = text.replace("guest:guest", f"{user}:wr0ng")
    kept = pubd.http()
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            assert kept.send("x", "k", str(sent))[0] == 202
            sent += 1

    send(20)
    assert pubd.reload(wrong)[0] == 200
    pubd.program.says("ACCESS_REFUSED")
    send(20)
    confirmed(pubd, sent)
    assert pubd.reload(text.replace("guest:guest", f"{user}:s3cret"))[0] == 200
    send(200)
    until(lambda: user in str(shared_node.connections()))
    send(20)
    confirmed(pubd, sent)
    until(lambda: [each["user"] for each in shared_node.connections() if each.get("vhost") == vhost] == [user])
    assert [int(each.body) for each in drain("q", url)] == list(range(sent))
    assert pubd.status["deliveries"]["lost"] == 0
    assert "wr0ng" not in pubd.program.output
    assert "s3cret" not in pubd.program.output


def test_tokens_and_who_is_connected_by_them(reloading: Start, text: str) -> None:
    tokens = {name: new_token() for name in ("boss", "shop", "gone")}
    principal = '[[principal]]\nname = "{0}"\noperate = {2}\ngrants = [{{ exchange = "*" }}]\ntokens = ["{1}"]\n'

    def rows(*names: str) -> str:
        boss = ("true" if name == "boss" else "false" for name in names)
        return "".join(
            principal.format(name, hash_of(tokens[name]), may) for name, may in zip(names, boss, strict=True)
        )

    lines = '[lines]\nlisten = ["unix:l.sock"]\n'
    pubd = reloading(text + lines + rows("boss", "shop", "gone"))
    pubd.program.says("connected to")
    boss = pubd.http()
    clients = {}
    for name in ("shop", "gone"):
        clients[name] = pubd.lines("l.sock")
        clients[name].say({"op": "auth", "token": tokens[name]})
        assert clients[name].send("x", "k")["state"] == "stored"
    pubd.write(text + lines + rows("boss", "shop"))
    assert boss.ask("POST", "/reload", token=tokens["boss"])[0] == 200
    assert clients["gone"].hear() is None
    assert clients["shop"].send("x", "k")["state"] == "stored"
    assert boss.send("x", "k", token=tokens["gone"])[0] == 401
    assert boss.send("x", "k", token=tokens["shop"])[0] == 202
    # Another grant.
    pubd.write(text + lines + rows("boss", "shop").replace('"*"', '"y"'))
    assert boss.ask("POST", "/reload", token=tokens["boss"])[0] == 200
    assert clients["shop"].send("x", "k")["error"]["type"] == "not-allowed"
    assert boss.ask("POST", "/reload", token=tokens["shop"])[0] == 403
    assert not any(token in pubd.program.output for token in tokens.values())


def test_only_listeners_that_changed_are_closed_or_opened(pubd: Reloading, text: str, tmp_path: Path) -> None:
    one, other, third = free_ports(3)
    listen = f'listen = ["tcp:{pubd.port}:interface=127.0.0.1", '
    two = text.replace('listen = ["tcp:{port}:interface=127.0.0.1"', listen + f'"tcp:{one}:interface=127.0.0.1"')
    assert pubd.reload(two)[0] == 200
    kept, leaving = pubd.http(), pubd.http(one)
    assert leaving.send("x", "k")[0] == 202
    assert pubd.reload(two.replace(str(one), str(other)))[0] == 200
    assert kept.send("x", "k")[0] == 202
    until(lambda: not leaving.open)
    with pytest.raises(ConnectionRefusedError):
        pubd.http(one)
    assert pubd.http(other).send("x", "k")[0] == 202
    # A table that comes, changes, and goes.
    lines = two + '[lines]\nlisten = ["unix:l.sock:mode=600"]\n'
    assert pubd.reload(lines)[0] == 200
    client = pubd.lines("l.sock")
    assert client.send("x", "k")["state"] == "stored"
    assert pubd.reload(lines.replace("mode=600", "mode=660") + "max_line = 200\n")[0] == 200
    assert stat.S_IMODE((tmp_path / "l.sock").stat().st_mode) == 0o660
    assert client.send("x", "k")["state"] == "stored"
    assert client.send("x", "k", "x" * 300)["error"]["type"] == "too-large"
    assert pubd.reload(two)[0] == 200
    assert client.hear() is None
    until(lambda: not (tmp_path / "l.sock").exists())
    # One that is in the way of another has to go first.
    assert pubd.reload(two.replace(f"tcp:{one}:interface=127.0.0.1", f"tcp:{third}:interface=127.0.0.2"))[0] == 200
    assert pubd.reload(two.replace(f"tcp:{one}:", f"tcp:{third}:"))[0] == 200
    until(lambda: f"tcp:127.0.0.1:{third}" in str(pubd.status["intakes"]))
    assert pubd.http(third).send("x", "k")[0] == 202
    assert kept.send("x", "k")[0] == 202
    confirmed(pubd, 7)


def test_limits_hold_for_connections_that_are_open(pubd: Reloading, text: str) -> None:
    kept = pubd.http()
    assert kept.send("x", "k", "x" * 2000)[0] == 202
    assert (
        pubd.reload(text.replace("[http]", '[http]\nmax_body = 1000\nmax_wait = "1s"\nmax_unanswered = 2000'))[0] == 200
    )
    assert kept.send("x", "k", "x" * 2000)[0] == 413
    kept = pubd.http()
    assert kept.ask("POST", "/messages?wait=confirmed&timeout=2s", {"exchange": "x", "routing_key": "k"})[0] == 400
    assert pubd.reload(text)[0] == 200
    assert kept.send("x", "k", "x" * 2000)[0] == 202


def test_certificates_are_read_again_though_the_text_is_the_same(
    reloading: Start, tmp_path: Path, text: str, certificates: Certificates
) -> None:
    def use(name: str) -> None:
        identity = getattr(certificates, name)
        (tmp_path / "c.pem").write_bytes(identity.cert.read_bytes())
        (tmp_path / "k.pem").write_bytes(identity.key.read_bytes())

    (port,) = free_ports(1)
    tls = f'"tls:{port}:interface=127.0.0.1:certificate=c.pem:key=k.pem"'
    use("server")
    pubd = reloading(text.replace('listen = ["', f'listen = [{tls}, "')).ready()
    context = ssl.create_default_context(cafile=certificates.ca)
    kept = pubd.http(port, context)
    first = kept.certificate
    use("other_host")
    assert pubd.reload()[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        pubd.http(port, context)
    assert kept.send("x", "k")[0] == 202
    (tmp_path / "c.pem").write_text("nothing")
    status, answer = pubd.reload()
    assert (status, "c.pem: it contains no certificate" in answer["problems"][0]) == (422, True)
    use("server")
    assert pubd.reload()[0] == 200
    assert pubd.http(port, context).certificate == first
    assert kept.send("x", "k")[0] == 202


def test_a_file_with_the_brokers_is_read_again(
    reloading: Start, tmp_path: Path, url: str, text: str, nowhere: str
) -> None:
    (tmp_path / "urls").write_text(nowhere)
    pubd = reloading(text.replace(f'urls = ["{url}"]', 'urls_file = "urls"'))
    pubd.program.says("refused by 127.0.0.1")
    (tmp_path / "urls").write_text(url)
    pubd.program.signal(signal.SIGHUP)
    pubd.program.says("[broker] urls:", "connected to")
    assert "s3cret" not in pubd.program.output


def test_schedules_that_did_not_change_go_on(pubd: Reloading, text: str, url: str, drain: Drain) -> None:
    schedule = '[[schedule]]\nname = "{0}"\nevery = {1}\nexchange = "x"\nrouting_key = "k"\nbody = "{0} {{seq}}"\n'
    assert pubd.reload(text + schedule.format("steady", 0.1) + schedule.format("changed", 0.1))[0] == 200
    until(lambda: pubd.status["books"]["accepted"] >= 10)
    assert pubd.reload(text + schedule.format("steady", 0.1) + schedule.format("changed", 60))[0] == 200
    before = pubd.status["books"]["accepted"]
    until(lambda: pubd.status["books"]["accepted"] >= before + 5)
    assert pubd.reload(text)[0] == 200
    accepted = pubd.status["books"]["accepted"]
    confirmed(pubd, accepted)
    taken = [each.body.decode().split() for each in drain("q", url)]
    steady = [int(seq) for name, seq in taken if name == "steady"]
    assert steady == list(range(1, len(steady) + 1))
    assert len(steady) > len([name for name, _ in taken if name == "changed"])
    assert not any(way["name"] == "schedule" for way in pubd.status["intakes"])


def test_levels_of_the_log(pubd: Reloading, text: str) -> None:
    assert pubd.reload(text + '[log]\nlevel = "error"\n')[0] == 200
    assert pubd.reload(text + '[log]\nlevel = "error"\nformat = "text"\n')[0] == 200
    before = len(pubd.program.output.splitlines())
    assert pubd.reload("nonsense")[0] == 422
    pubd.program.says("reload refused: 1 problem")
    lines = pubd.program.output.splitlines()[before:]
    assert len(lines) == 2
    assert not any(line.startswith("{") for line in lines)
    assert pubd.reload(text)[0] == 200
    # Of what it was changed to, the log of before tells.
    pubd.program.says(', "what": "2 changes"')


def test_another_directory(pubd: Reloading, text: str, tmp_path: Path, url: str, drain: Drain) -> None:
    directory = '[directory]\npath = "{}"\nexchange = "x"\nrouting_key = "k"\nrescan = 0.2\n'

    def put(name: str, body: str) -> None:
        (tmp_path / name / "tmp" / body).write_text(body)
        (tmp_path / name / "tmp" / body).rename(tmp_path / name / "new" / body)

    assert pubd.reload(text + directory.format("one"))[0] == 200
    until((tmp_path / "one" / "new").exists)
    put("one", "first")
    confirmed(pubd, 1)
    assert pubd.reload(text + directory.format("two"))[0] == 200
    until((tmp_path / "two" / "new").exists)
    put("one", "stays")
    put("two", "second")
    confirmed(pubd, 2)
    assert pubd.reload(text + directory.format("one"))[0] == 200
    confirmed(pubd, 3)
    assert pubd.reload(text)[0] == 200
    assert sorted(each.body for each in drain("q", url)) == [b"first", b"second", b"stays"]


# systemd, and log files


def test_systemd_is_told_when_it_begins_and_when_it_is_over(reloading: Start, tmp_path: Path, text: str) -> None:
    with notify_manager(tmp_path) as manager:
        pubd = reloading(text, NOTIFY_SOCKET=manager.address)
        manager.awaits("STATUS", "connected to")
        for broken in (False, True):
            manager.datagrams.clear()
            pubd.write("nonsense" if broken else text)
            pubd.program.signal(signal.SIGHUP)
            manager.awaits("READY")
            told = [each for each in manager.datagrams if "RELOADING" in each or "READY" in each]
            assert [next(iter(each)) for each in told] == ["RELOADING", "READY"]
            assert int(told[0]["MONOTONIC_USEC"]) > 0
        manager.datagrams.clear()
        pubd.program.signal(signal.SIGTERM)
        assert pubd.program.ends() == 0
        manager.receive(0.2)
        assert "STOPPING" in manager.datagrams[-1]


def test_a_log_file_that_was_moved_away_is_opened_anew(run: Run, tmp_path: Path, text: str) -> None:
    (port,) = free_ports(1)
    (tmp_path / "pubd.toml").write_text(text.replace("{port}", str(port)))
    file, moved = tmp_path / "pubd.log", tmp_path / "pubd.log.1"
    program = run("twistd", "-n", "--pidfile=", "--logfile=pubd.log", "pubd", "--config", "pubd.toml")
    until(lambda: file.exists() and "connected to" in file.read_text())
    for number in (signal.SIGUSR1, signal.SIGHUP):
        file.rename(moved)
        program.signal(number)
        until(file.exists)
        program.signal(signal.SIGHUP)
        until(lambda: "reloaded " in file.read_text())
    # Nobody moved it: Twisted does, as it always did.
    program.signal(signal.SIGUSR1)
    until(lambda: (tmp_path / "pubd.log.2").exists())
    program.signal(signal.SIGTERM)
    assert program.ends() == 0
    assert "stopped; every accepted message is settled" in file.read_text()


def test_while_it_stops_nothing_is_reloaded(pubd: Reloading, text: str, shared_node: Node, url: str) -> None:
    del text
    with closing(pika.BlockingConnection(pika.URLParameters(url))):
        kept = pubd.http()
        # A request that is not complete keeps the intake for a moment.
        kept._connection.putrequest("POST", "/messages")
        kept._connection.putheader("Content-Length", "1000")
        kept._connection.endheaders()
        pubd.program.signal(signal.SIGTERM)
        pubd.program.signal(signal.SIGHUP)
        assert pubd.program.ends() == 0
    assert "reloaded " not in pubd.program.output
    assert shared_node.is_running
