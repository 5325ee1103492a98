"""Looking at pubd in every way that an operator has, until each of them says what is wrong; and how long that took."""

from __future__ import annotations

import html
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from pubd.cli.client import AnswerLost, Client, Unreachable
from pubd.cli.server import Server
from tests.drill.clock import PATIENCE, NotSaid, now
from tests.drill.stage import Stage

STATUS, PAGE, READY, PUBLISH, METRICS, LOG = "pubd status", "/", "/readyz", "/publishz", "/metrics", "log"
VIEWS = (STATUS, PAGE, READY, PUBLISH, METRICS, LOG)
_PAUSE = 0.1
#: Seconds that a program waits for an answer over HTTP.
_ANSWER = 5.0


@attrs.frozen(kw_only=True)
class Sight:
    """``view`` said ``said``, ``seconds`` after the fault."""

    view: str
    said: str
    seconds: float


def watch(stage: Stage, sees: Mapping[str, str], since: float) -> list[Sight]:
    """What each view says that its pattern matches; all are looked at together. Raises NotSaid."""
    found: dict[str, Sight] = {}
    last: dict[str, Sequence[str]] = {}

    def look(view: str, pattern: str) -> None:
        while now() - since < PATIENCE and view not in found:
            last[view] = said = _LOOKS[view](stage)
            line = next((line for line in said if re.search(pattern, line)), None)
            if line is not None:
                found[view] = Sight(view=view, said=line, seconds=now() - since)
                return
            time.sleep(_PAUSE)

    threads = [threading.Thread(target=look, args=item, name=item[0]) for item in sees.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    missing = [f"{view} does not say {sees[view]!r} but {last.get(view)}" for view in sees if view not in found]
    if missing:
        raise NotSaid("\n".join(missing))
    return [found[view] for view in VIEWS if view in found]


def _status(stage: Stage) -> list[str]:
    done = stage.attempt("pubd status --json")
    if not done.stdout:
        return [done.stderr.strip()]
    return [f"{each['text']} -> {each['advice']}" for each in json.loads(done.stdout)["findings"]]


def _asked(stage: Stage, path: str, accept: str = "*/*") -> tuple[int, str]:
    try:
        with Client(Server.parse(str(stage.socket)), clock=now) as client:
            answer = client.ask("GET", path, deadline=now() + _ANSWER, headers={"Accept": accept})
    except (Unreachable, AnswerLost):
        return 0, f"no answer within {_ANSWER:g} s"
    return answer.status, answer.body.decode()


def _page(stage: Stage) -> list[str]:
    """Its text, in sentences as they stand in one element each."""
    status, text = _asked(stage, "/", "text/html")
    if not status:
        return [text]
    if status == 404:
        return _status(stage)
    # The title says the same in short.
    text = text.partition("<body")[2]
    pieces = [
        " ".join(html.unescape(re.sub(r"</?(?:code|b|em|strong|span|time)[^>]*>", "", each)).split())
        for each in re.split(r"<(?!/?(?:code|b|em|strong|span|time)\b)[^>]*>", text)
    ]
    return [each for each in pieces if each]


def _health(path: str) -> Callable[[Stage], list[str]]:
    def look(stage: Stage) -> list[str]:
        status, text = _asked(stage, path)
        if not status:
            return [text]
        reasons = json.loads(text).get("reasons", [])
        return [f"{status} {reason['type']}: {reason['detail']}" for reason in reasons] or [f"{status} ok"]

    return look


def _metrics(stage: Stage) -> list[str]:
    status, text = _asked(stage, "/metrics")
    return text.splitlines() if status else [text]


def _log(stage: Stage) -> list[str]:
    return messages(stage)[stage.logged :]


def messages(stage: Stage) -> list[str]:
    """Of all that was logged so far, by every pubd that was started."""
    return [_message(line) for program in stage.others for line in program.output.splitlines()]


def _message(line: str) -> str:
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        # Said before logging began.
        return line


_LOOKS: Mapping[str, Callable[[Stage], list[str]]] = {
    STATUS: _status,
    PAGE: _page,
    READY: _health(READY),
    PUBLISH: _health(PUBLISH),
    METRICS: _metrics,
    LOG: _log,
}
