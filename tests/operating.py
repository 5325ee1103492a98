"""A publisher on a scripted broker with everything that a running pubd shows of itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred

from pubd.config import SpoolConfig
from pubd.intake.http.answer import Answer
from pubd.intake.http.request import Request
from pubd.intake.http.route import Routes
from pubd.operate.reading import IntakeReading, SpanReading
from pubd.operating import Operating
from pubd.spool.base import Limits
from tests.rig import Rig

ROOT = Path(__file__).parents[1]


class Shown:
    """``rig`` is started by the test; the time of day is that of the rig."""

    def __init__(
        self,
        rig: Rig,
        *,
        limits: Limits | None = None,
        path: Path | None = None,
        intakes: Sequence[IntakeReading] = (),
        spans: SpanReading | None = None,
    ) -> None:
        self.rig = rig
        self.operating = Operating(
            clock=rig.network,
            publisher=rig.publisher,
            spool=SpoolConfig(url="memory:", path=path, limits=limits or Limits()),
            intakes=intakes,
            spans=spans,
            wall=rig.network.seconds,
        )
        self._routes = Routes(self.operating.routes())

    def start(self) -> Shown:
        """From here on it looks by itself, too."""
        self.operating.health.startService()
        self.operating.history.startService()
        return self

    def stop(self) -> None:
        self.operating.health.stopService()
        self.operating.history.stopService()

    def ask(self, path: str, seconds: float = 0.0, **headers: str) -> Answer:
        """The answer, which comes within so many seconds of the rig's time."""
        path, _, query = path.partition("?")
        request = Request("GET", path, query, {k.replace("_", "-"): v for k, v in headers.items()}, b"HTTP/1.1")
        answered: list[Answer] = []
        answer: Any = self._routes.action(request).act(request)
        if isinstance(answer, Answer):
            return answer
        Deferred.fromCoroutine(answer).addCallback(answered.append)
        if seconds:
            self.rig.network.advance(seconds)
        return answered[0]

    def json(self, path: str, seconds: float = 0.0) -> Any:
        return json.loads(self.ask(path, seconds).body)

    def reasons(self, path: str, seconds: float = 0.0) -> list[str]:
        """The types of the reasons."""
        return [reason["type"] for reason in self.json(path, seconds)["reasons"]]

    def values(self, seconds: float = 0.0) -> Values:
        """What /metrics says now."""
        return Values(self.ask("/metrics", seconds).body.decode())


class Values:
    """A page of metrics, read by Prometheus' own parser."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of this sample; None: there is none."""
        return self._samples.get((name, frozenset(labels.items())))

    def labels(self, name: str) -> list[dict[str, str]]:
        """Those of each sample of this name."""
        return [dict(labels) for each, labels in self._samples if each == name]

    @property
    def names(self) -> set[str]:
        """Of all samples."""
        return {name for name, _ in self._samples}


def promtool(*arguments: str, text: str = "", directory: Path | None = None) -> tuple[int, str]:
    """Exit code and what it said. Debian's package prometheus has it; script/test sees to that."""
    found = shutil.which("promtool")
    assert found is not None, "promtool is missing: apt-get install prometheus (script/test does)"
    done = subprocess.run(
        [found, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False, cwd=directory
    )
    return done.returncode, done.stdout + done.stderr
