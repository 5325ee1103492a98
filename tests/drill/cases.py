"""The faults: how each is brought about, what pubd has to say of it, and what is then typed because pubd said so."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Mapping

import attrs

from tests.drill.clock import until
from tests.drill.stage import FOREIGN, KEY, OWN, PASSWORD, USER, Stage
from tests.drill.watching import LOG, METRICS, PAGE, PUBLISH, READY, STATUS
from tests.small_disk import MIB

#: What keeps away from the others.
_WELL = "^200 ok$"
_NO_ANSWER = "^no answer within"
HOUR = 3600


@attrs.frozen(kw_only=True)
class Case:
    """``fault`` happens, each view comes to say what its pattern in ``sees`` matches, ``mend`` follows it.

    ``done`` says what happens, ``then`` what a reader should know of the way out, both in reStructuredText.
    """

    name: str
    title: str
    done: str
    then: str
    fault: Callable[[Stage], None]
    sees: Mapping[str, str]
    mend: Callable[[Stage, str], None]
    small_disk: bool = False
    clock: bool = False


def _stop_broker(stage: Stage) -> None:
    stage.node.stop()


def _start_broker(stage: Stage, said: str) -> None:
    stage.follow(said, "systemctl start rabbitmq-server")


def _delete_exchange(stage: Stage) -> None:
    with stage.channel() as channel:
        channel.exchange_delete(FOREIGN)


def _declare_exchange(stage: Stage, said: str) -> None:
    stage.follow(said, f"rabbitmqadmin declare exchange name={FOREIGN} type=TYPE", TYPE="topic")
    stage.follow(
        said,
        f"rabbitmqadmin declare binding source={FOREIGN} destination=QUEUE routing_key=KEY",
        QUEUE=FOREIGN,
        KEY=KEY,
    )
    # Between the two a message may have come that no queue got.
    _retry_if_parked(stage)


def _retry_if_parked(stage: Stage) -> None:
    status = stage.status()
    until(lambda: not stage.status()["troubles"], lambda: str(status["troubles"]))
    for finding in stage.status()["findings"]:
        if "parked" in finding["text"]:
            stage.follow(finding["advice"], "pubd list --state parked")
            _retry(stage, finding["advice"])


def _retry(stage: Stage, said: str) -> None:
    command = "pubd retry --state parked"
    assert f"'{command}'" in said, said
    # It asks on a terminal; here is nobody to answer.
    stage.typed.append(f"{command} --yes")
    stage.run(stage.typed[-1])


def _change_password(stage: Stage) -> None:
    stage.node.ctl("change_password", USER, "another")
    stage.node.close_all_connections("the password was changed")


def _change_it_back(stage: Stage, said: str) -> None:
    stage.follow(said, "rabbitmqctl change_password USER PASSWORD", USER=USER, PASSWORD=PASSWORD)


def _fill_disk(stage: Stage) -> None:
    # Somewhat more than nothing, since pubd writes at the same time.
    stage.disk.stuff(leave=MIB)


def _make_room(stage: Stage, said: str) -> None:
    shown = stage.follow(said, f"df -h {stage.disk.path}")
    assert re.search(r"\b(?:99|100)%", shown), shown
    stage.typed.append(f"rm {stage.disk.path}/somebody-elses")
    stage.disk.clear()


def _set_clock(seconds: int) -> Callable[[Stage], None]:
    def fault(stage: Stage) -> None:
        for name, delay in (("soon", "30m"), ("late", "2h")):
            message = {"exchange": OWN, "routing_key": KEY, "body": name, "delay": delay}
            sent = json.dumps(message).replace("'", "")
            stage.run(f"printf '%s\\n' '{sent}' | pubd send --ndjson -")
        stage.more += 2
        until(lambda: stage.status()["books"]["deferred"] == 2, lambda: str(stage.status()["books"]))
        stage.clock.set(seconds)

    return fault


def _correct_clock(stage: Stage, said: str) -> None:
    stage.follow(said, "timedatectl")
    deferred = stage.status()["books"]["deferred"]
    # The time service does its work.
    stage.clock.set(0)
    until(lambda: len([f for f in stage.status()["findings"] if "clock" in f["text"]]) == 1, lambda: "the step back")
    assert stage.status()["healthy"]
    assert stage.status()["books"]["deferred"] == deferred
    # What waits still is not waited for here.
    stage.typed.append("pubd retry --state deferred --yes")
    stage.run(stage.typed[-1])


def _hang(stage: Stage) -> None:
    stage.program.signal(signal.SIGSTOP)
    stage.another()


def _end_hung(stage: Stage, said: str) -> None:
    stage.follow(said, f"kill -KILL {stage.program.pid}")
    assert stage.program.ends() == -signal.SIGKILL
    assert stage.others[-1].ends() == 1
    # As systemd or whoever looks after it does.
    stage.start()


def _park(count: int) -> Callable[[Stage], None]:
    def fault(stage: Stage) -> None:
        line = json.dumps({"exchange": FOREIGN, "routing_key": "nobody.wants.it", "body": "x"})
        (stage.directory / "unroutable").write_text(f"{line}\n" * count)
        stage.run("pubd send --ndjson unroutable --quiet --output none")
        stage.more += count

    return fault


def _bind_and_retry(stage: Stage, said: str) -> None:
    listed = stage.follow(said, "pubd list --state parked")
    assert "312 NO_ROUTE" in listed, listed
    stage.typed.append(f"rabbitmqadmin declare binding source={FOREIGN} destination={FOREIGN} routing_key='nobody.#'")
    stage.run(stage.typed[-1])
    _retry(stage, said)
    until(lambda: not stage.status()["books"]["parked"], lambda: str(stage.status()["books"]))


def cases(*, parked: int = 100_000) -> tuple[Case, ...]:
    """All of them; ``parked`` is how many messages are, in the case of that name."""
    wait = r"messages for exchange invoices wait: 404 NOT_FOUND"
    return (
        Case(
            name="broker-stopped",
            title="RabbitMQ is stopped",
            done="The broker is shut down in RabbitMQ's own way; the application goes on handing in messages.",
            then="pubd connects by itself, within 30 seconds at most, and publishes what has waited, in order.",
            fault=_stop_broker,
            sees={
                STATUS: r"not connected to RabbitMQ \(waiting\): .*connection refused",
                PAGE: r"not connected to RabbitMQ \(waiting\): .*connection refused",
                READY: _WELL,
                PUBLISH: r"^503 link-waiting: .*connection refused",
                METRICS: r"^pubd_can_publish 0\.0",
                LOG: r"connection refused by .*; retrying in",
            },
            mend=_start_broker,
        ),
        Case(
            name="exchange-deleted",
            title="An exchange is deleted",
            done="Somebody deletes the exchange ``invoices``, which another application had declared.",
            then="Its bindings went with it. What comes between the two commands is returned by RabbitMQ and parked; "
            "``pubd status`` then says so, and ``pubd retry`` is what it says. An exchange that stands in "
            "``pubd.toml`` is declared again by pubd itself, together with its queues and bindings.",
            fault=_delete_exchange,
            sees={
                STATUS: wait,
                PAGE: wait,
                READY: _WELL,
                PUBLISH: r"^503 exchange-refused: 404 NOT_FOUND",
                METRICS: r'^pubd_lanes\{state="refused"\} 1\.0',
                LOG: r"lane 'invoices' refused: 404 NOT_FOUND.*trying again in",
            },
            mend=_declare_exchange,
        ),
        Case(
            name="password-changed",
            title="The password is changed at the broker",
            done="``rabbitmqctl change_password`` for pubd's user. RabbitMQ lets an open connection live on; here "
            "the operator closes it, as the next restart of the broker would.",
            then="Or the new password is written into ``[broker] urls`` of ``pubd.toml`` (or its ``urls_file``).",
            fault=_change_password,
            sees={
                STATUS: r"not connected to RabbitMQ \(refused\): .*403 ACCESS_REFUSED",
                PAGE: r"not connected to RabbitMQ \(refused\): .*403 ACCESS_REFUSED",
                READY: _WELL,
                PUBLISH: r"^503 link-refused: .*403 ACCESS_REFUSED",
                METRICS: r'^pubd_link_state\{state="refused"\} 1\.0',
                LOG: r"403 ACCESS_REFUSED.*no retry will cure this",
            },
            mend=_change_it_back,
        ),
        Case(
            name="disk-filled",
            title="The disk of the spool is filled",
            done="Another program writes to the disk of the spool until 1 MiB is left, less "
            "than pubd keeps in reserve (``min_free``).",
            then="Applications were refused meanwhile (507), and handed in again; what had been accepted before was "
            "published all the same.",
            fault=_fill_disk,
            sees={
                STATUS: r"submissions are refused: the spool is full \((?:min_free|disk)\)",
                PAGE: r"submissions are refused: the spool is full \((?:min_free|disk)\)",
                READY: r"^503 spool-full: ",
                PUBLISH: _WELL,
                METRICS: r"^pubd_can_accept 0\.0",
                LOG: r"submissions are refused: the spool is full",
            },
            mend=_make_room,
            small_disk=True,
        ),
        *(_clock_case(seconds) for seconds in (HOUR, -HOUR)),
        Case(
            name="spool-locked",
            title="The spool is locked by a process that hangs",
            done="pubd is stopped by a signal (``SIGSTOP``, as a debugger does it), and somebody starts a second one.",
            then="The application got no answers meanwhile; it handed in again, with the same idempotency keys. Under "
            "systemd the watchdog ends such a process by itself, after ``WatchdogSec=`` (60 s).",
            fault=_hang,
            sees={
                STATUS: r"did not answer in time: process \d+ is stopped.*'kill -KILL \d+'",
                PAGE: _NO_ANSWER,
                READY: _NO_ANSWER,
                PUBLISH: _NO_ANSWER,
                METRICS: _NO_ANSWER,
                LOG: r"is in use by process \d+, which is stopped.*'kill -KILL \d+'",
            },
            mend=_end_hung,
        ),
        Case(
            name="parked",
            title=f"{parked:,} messages are parked",
            done=f"An application hands in {parked:,} messages for ``invoices`` with a routing key that no queue gets.",
            then="``pubd retry`` asks first on a terminal; ``--yes`` answers it. Other messages went on all the time.",
            fault=_park(parked),
            sees={
                STATUS: rf"^{parked:,} messages parked: a person has to decide",
                PAGE: rf"{parked:,} messages parked: a person has to decide",
                READY: _WELL,
                PUBLISH: _WELL,
                METRICS: rf'^pubd_messages\{{state="parked"\}} {parked}\.0',
                LOG: r"more messages for 'invoices' are parked, the last of them",
            },
            mend=_bind_and_retry,
        ),
    )


def _clock_case(seconds: int) -> Case:
    direction = "forward" if seconds > 0 else "back"
    words = rf"the clock of pubd's host was set {direction} by 3,[56]\d\d s"
    effect = (
        "what was to wait half an hour more was published at once; it is not called back"
        if seconds > 0
        else "what was to wait half an hour waited on, and would have for an hour and a half"
    )
    return Case(
        name=f"clock-{direction}",
        title=f"The clock is set {direction} by an hour",
        done=f"The time of day of pubd's process goes {direction} by an hour, while two messages are deferred, one by "
        "30 minutes, one by two hours.",
        then=f"The time service corrects the clock, which is a step for pubd as well. Meanwhile {effect}. Connections, "
        "retries and time limits took no notice. What was still deferred is sent at once here by ``pubd retry``, so "
        "that the drill need not wait for it.",
        fault=_set_clock(seconds),
        sees={
            STATUS: words,
            PAGE: words,
            READY: _WELL,
            PUBLISH: _WELL,
            METRICS: r"^pubd_clock_steps_total 1\.0",
            LOG: rf"the clock of this host was set {direction} by",
        },
        mend=_correct_clock,
        clock=True,
    )
