"""Reload: in which order, one at a time, all of it or nothing, and who is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pubd.access import Access, Principal, Quotas
from pubd.access.tokens import hash_of
from pubd.config import Config
from pubd.errors import InvalidOption, PublisherStopped, ReloadRefused
from pubd.intake.prepared import Prepared
from pubd.intake.schedule import ScheduleIntake
from pubd.policy import Policies, Policy
from pubd.reload import Reload, Reloaded, in_time
from pubd.schedule import Every, Schedule, Template
from tests.strictness import Logged


class Bench:
    """A reload whose file is ``text``, read when the test says so."""

    def __init__(self, *, broken: bool = False) -> None:
        self.text = ""
        self.story: list[str] = []
        self.reads: list[Callable[[], None]] = []
        self.reload = Reload(
            Config.parse("", {}),
            where="pubd.toml",
            load=lambda: Config.parse(self.text, {}),
            parts=[self, Part(self.story, broken)],
            in_thread=self._in_thread,
        )
        self.reload.supervisors.append(self)
        self.reload.startService()

    def _in_thread(self, read: Callable[[], Config]) -> Deferred[Config]:
        answer: Deferred[Config] = Deferred()

        def now() -> None:
            try:
                config = read()
            except Exception:
                answer.errback()
            else:
                answer.callback(config)

        self.reads.append(now)
        return answer

    def read(self) -> None:
        """The file is read now."""
        self.reads.pop(0)()

    def ask(self) -> list[object]:
        """What is answered, in the end."""
        answers: list[object] = []
        self.reload.reload().addCallbacks(answers.append, lambda failure: answers.append(failure.value))
        return answers

    # A part, and a manager

    def prepare(self, config: Config) -> Prepared:
        del config
        self.story.append("first gets ready")
        return Prepared(apply=lambda: self.story.append("first changes"), drop=lambda: self.story.append("first drops"))

    def reloading(self) -> None:
        self.story.append("reloading")

    def reloaded(self) -> None:
        self.story.append("reloaded")


class Part:
    """One more; ``broken`` ones are never ready."""

    def __init__(self, story: list[str], broken: bool) -> None:
        self._story = story
        self._broken = broken

    def prepare(self, config: Config) -> Prepared:
        del config
        if self._broken:
            raise InvalidOption("a certificate is missing")
        self._story.append("second gets ready")
        return Prepared(apply=lambda: self._story.append("second changes"))


def test_all_get_ready_before_the_first_changes(logged: Logged) -> None:
    bench = Bench()
    bench.text = "[delivery]\nwindow = 5\n"
    answers = bench.ask()
    assert bench.story == ["reloading"]
    bench.read()
    assert bench.story[1:] == [
        "first gets ready",
        "second gets ready",
        "first changes",
        "second changes",
        "reloaded",
    ]
    (answer,) = answers
    assert isinstance(answer, Reloaded)
    assert [str(change) for change in answer.changes] == ["[delivery] window: 1000 -> 5"]
    assert bench.reload.config.delivery.lanes.window == 5
    assert "[delivery] window: 1000 -> 5" in logged.texts
    assert "reloaded pubd.toml: 1 change" in logged.texts


def test_one_that_cannot_leaves_all_as_they_were(logged: Logged) -> None:
    bench = Bench(broken=True)
    bench.text = "[delivery]\nwindow = 5\n"
    answers = bench.ask()
    bench.read()
    assert bench.story == ["reloading", "first gets ready", "first drops", "reloaded"]
    (answer,) = answers
    assert isinstance(answer, ReloadRefused)
    assert answer.problems == ("pubd.toml: a certificate is missing",)
    assert bench.reload.config.delivery.lanes.window == 1000
    assert "reload refused: 1 problem in pubd.toml; nothing was changed" in logged.texts


def test_every_mistake_is_told_and_no_part_is_asked() -> None:
    bench = Bench()
    bench.text = "[delivery]\nwindow = -5\npersistent = 1\n"
    answers = bench.ask()
    bench.read()
    (answer,) = answers
    assert isinstance(answer, ReloadRefused)
    assert len(answer.problems) == 2
    assert bench.story == ["reloading", "reloaded"]


def test_who_asks_meanwhile_is_answered_by_one_more(logged: Logged) -> None:
    bench = Bench()
    first = bench.ask()
    bench.text = "[delivery]\nwindow = 5\n"
    others = [bench.ask() for _ in range(5)]
    assert len(bench.reads) == 1
    bench.read()
    assert len(first) == 1
    assert not any(others)
    bench.read()
    assert all(isinstance(each, Reloaded) for answers in others for each in answers)
    assert bench.reads == []
    assert bench.story.count("reloading") == 2
    # The first one found it, too.
    assert logged.texts.count("[delivery] window: 1000 -> 5") == 1


def test_a_stop_ends_it_before_anything_is_changed() -> None:
    bench = Bench()
    answers, waiting = bench.ask(), bench.ask()
    bench.reload.stopService()
    bench.read()
    assert all(isinstance(each, PublisherStopped) for each in (*answers, *waiting))
    assert (len(answers), len(waiting)) == (1, 1)
    assert isinstance(bench.ask()[0], PublisherStopped)
    assert "first changes" not in bench.story


def test_a_mistake_of_pubds_is_an_answer_too(logged: Logged) -> None:
    bench = Bench()
    bench.reload._load = lambda: 1 // 0  # type: ignore[assignment,return-value]  # a mistake
    answers = bench.ask()
    bench.read()
    assert isinstance(answers[0], ReloadRefused)
    assert "ZeroDivisionError" in str(answers[0])
    logged.events.clear()


def test_what_a_part_begins_is_waited_for_but_not_for_ever() -> None:
    clock = Clock()
    for seconds in (1.0, 10.0):
        bench = Bench()
        begun: Deferred[None] = Deferred()
        answers = bench.ask()
        bench.reload.wait_for(in_time(clock, begun, 5.0))
        bench.read()
        assert answers == []
        if seconds < 5:
            begun.callback(None)
        clock.advance(seconds)
        assert len(answers) == 1
    assert clock.getDelayedCalls() == []


# Parts


def test_schedules_that_stay_keep_their_time_and_count_and_new_ones_missed_nothing() -> None:
    clock, sent = Clock(), []

    def submit(message: object) -> Deferred[object]:
        sent.append(message.body.decode())  # type: ignore[attr-defined]  # a Message
        return Deferred()

    def schedule(name: str, every: float) -> Schedule:
        return Schedule(name=name, when=Every(every), exchange="x", body=Template.parse(name + " {seq}"))

    intake = ScheduleIntake(
        clock=clock,
        wall=clock.seconds,
        submit=submit,  # type: ignore[arg-type]  # no receipts
        schedules=[schedule("stays", 10), schedule("changes", 10), schedule("goes", 10)],
        hostname="h",
    )
    clock.advance(7)
    intake.startService()
    clock.pump([1] * 5)
    assert sent == ["stays 1", "changes 1", "goes 1"]
    intake.reconfigure([schedule("new", 4), schedule("stays", 10), schedule("changes", 20)])
    assert intake.names == ["new", "stays", "changes"]
    clock.pump([1] * 10)
    assert [each for each in sent[3:] if not each.startswith("new")] == ["stays 2", "changes 1"]
    assert [each for each in sent[3:] if each.startswith("new")] == ["new 1", "new 2"]
    intake.stopService()
    assert clock.getDelayedCalls() == []


def test_a_rate_that_changes_keeps_what_was_spent() -> None:
    quotas = Quotas()
    slow, fast = (Principal(name="p", rate=rate) for rate in (10.0, 100.0))
    assert quotas.spend(slow, 10, 0, 0.0) == 0.0
    assert quotas.spend(slow, 1, 0, 0.0) == pytest.approx(0.1)
    assert quotas.spend(fast, 1, 0, 0.0) == pytest.approx(0.01)
    assert quotas.spend(fast, 100, 0, 1.0) == 0.0
    assert quotas.spend(Principal(name="p"), 10**6, 10**9, 1.0) == 0.0
    assert quotas.spend(slow, 1, 0, 1.0) > 0.0


def test_who_is_who_changes_at_once_or_not_at_all() -> None:
    one, other = (Principal(name=name, tokens=(hash_of(name),)) for name in ("one", "other"))
    access = Access([one])
    access.reconfigure([other], anonymous=None)
    assert access.by_token("one") is None
    assert access.by_token("other") is other
    twins = [other, Principal(name="twin", tokens=other.tokens)]
    with pytest.raises(InvalidOption):
        access.reconfigure(twins, anonymous=None)
    assert access.principals == (other,)


def test_policies_forget_what_they_found_before() -> None:
    policies = Policies((), Policy(max_attempts=1))
    assert policies.of("x", "k").max_attempts == 1
    policies.reconfigure([Policy(exchange="x", max_attempts=2)], Policy(max_attempts=3))
    assert [policies.of(exchange, "k").max_attempts for exchange in "xy"] == [2, 3]
