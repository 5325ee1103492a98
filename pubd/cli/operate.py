"""``pubd retry``, ``hold``, ``release`` and ``discard``: what a person decides about messages, by id or all in a state.

Sets go page by page, a commit of the daemon's each. What is interrupted can be repeated: what was done stays done.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import attrs
import click

from pubd.cli.daemon import daemon, daemon_options
from pubd.cli.failure import INTERRUPTED, REFUSED, USAGE, Failure
from pubd.cli.names import complete_exchange, complete_id
from pubd.cli.pages import PAGE, pages
from pubd.cli.screen import json_line, output
from pubd.cli.selection import Selection, counted, match_option, selection
from pubd.cli.source import is_terminal
from pubd.wording import messages, moment, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pubd.cli.daemon import Daemon

#: Sentences about single messages that go to stderr; beyond them only the number is told.
MOST_SAID = 20
#: The longest id: a UUID.
_LONGEST = 64


@attrs.frozen(kw_only=True)
class Decision:
    """``verb`` as the command has it, ``done`` as a person reads it; ``more`` goes with the ids in each request.

    ``states`` are those in which it can find messages, ``usual`` those in which it looks unless one is given; ``held``:
    of the parked ones those that an operator holds, or the others.
    """

    verb: str
    done: str
    states: tuple[str, ...]
    usual: tuple[str, ...]
    held: bool | None = None
    more: dict[str, Any] = attrs.Factory(dict)

    @property
    def path(self) -> str:
        """Where it is asked for."""
        return f"/messages/{self.verb}"


# A delay that was asked for is not ended by the way, and what is held is left to release.
RETRY = Decision(
    verb="retry", done="will be published again", states=("parked", "deferred"), usual=("parked",), held=False
)
HOLD = Decision(verb="hold", done="held", states=("ready", "deferred"), usual=("ready", "deferred"))
RELEASE = Decision(verb="release", done="released", states=("parked",), usual=("parked",), held=True)
DISCARD = Decision(
    verb="discard",
    done="discarded",
    states=("parked", "deferred", "ready"),
    usual=("parked", "deferred", "ready"),
)


@attrs.define
class Tally:
    """So far. ``refused`` are the messages that were not changed, by why."""

    done: int = 0
    refused: int = 0
    said: int = 0

    def count(self, results: list[dict[str, Any]], as_json: bool) -> None:
        """Take in the answers for some ids, and say what was not done."""
        for result in results:
            if as_json:
                json_line(result)
            error = result.get("error")
            if error is None:
                self.done += 1
                continue
            self.refused += 1
            if not as_json and self.said < MOST_SAID:
                self.said += 1
                click.echo(f"pubd: {plain(str(error.get('id', '?')))}: {plain(error['detail'])}", err=True)

    def sentence(self, decision: Decision) -> str:
        """The counts."""
        refused = f", {self.refused:,} not" if self.refused else ""
        return f"{messages(self.done)} {decision.done}{refused}"


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=complete_id)
@click.option("--state", type=click.Choice(("parked", "deferred")), help="All messages in this state.")
@click.option("-e", "--exchange", shell_complete=complete_exchange, help="Of a set: only those for this exchange.")
@match_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: what became of each message.")
@daemon_options
def retry(ids: tuple[str, ...], **options: Any) -> None:
    """Publish messages again, now, their attempts counted anew: those with these IDs (- reads them from stdin), or all
    in a state.

    Exit codes: 0 all done, 1 some or none were, 2 usage, 3 pubd is not reachable, 75 try again later, 130 interrupted.
    """
    _decide(RETRY, ids, options, ask_for_ids=False)


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=complete_id)
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the messages.")
@click.option("--state", type=click.Choice(("ready", "deferred")), help="All messages in this state.")
@click.option("-e", "--exchange", shell_complete=complete_exchange, help="Of a set: only those for this exchange.")
@match_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: what became of each message.")
@daemon_options
def hold(ids: tuple[str, ...], reason: str, **options: Any) -> None:
    """Do not publish messages until they are released: those with these IDs (- reads them from stdin), or all in a
    state. What is on its way to RabbitMQ at this moment is not held.

    Exit codes: 0 all done, 1 some or none were, 2 usage, 3 pubd is not reachable, 75 try again later, 130 interrupted.
    """
    if reason:
        _check_reason(reason)
    more = {"reason": reason} if reason else {}
    _decide(attrs.evolve(HOLD, more=more), ids, options, ask_for_ids=False)


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=complete_id)
@click.option("--state", type=click.Choice(("parked",)), help="All messages that are parked because they are held.")
@click.option("-e", "--exchange", shell_complete=complete_exchange, help="Of a set: only those for this exchange.")
@match_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: what became of each message.")
@daemon_options
def release(ids: tuple[str, ...], **options: Any) -> None:
    """Let held messages go on, in their old places: those with these IDs (- reads them from stdin), or all.

    Exit codes: 0 all done, 1 some or none were, 2 usage, 3 pubd is not reachable, 75 try again later, 130 interrupted.
    """
    _decide(RELEASE, ids, options, ask_for_ids=False)


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=complete_id)
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with the messages for 'retain'.")
@click.option("--state", type=click.Choice(("parked", "deferred", "ready")), help="All messages in this state.")
@click.option("-e", "--exchange", shell_complete=complete_exchange, help="Of a set: only those for this exchange.")
@match_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: what became of each message.")
@daemon_options
def discard(ids: tuple[str, ...], reason: str, **options: Any) -> None:
    """Drop messages for good: those with these IDs (- reads them from stdin), or all in a state.

    Exit codes: 0 all done, 1 some or none were, 2 usage, 3 pubd is not reachable, 75 try again later, 130 interrupted.
    """
    _check_reason(reason)
    _decide(attrs.evolve(DISCARD, more={"reason": reason}), ids, options, ask_for_ids=True)


def _decide(decision: Decision, ids: tuple[str, ...], options: dict[str, Any], *, ask_for_ids: bool) -> None:
    yes, as_json = options.pop("yes"), options.pop("as_json")
    chosen = selection(options, decision.states)
    if bool(chosen.given) == bool(ids):
        which = "either by their ids or" if ids else "by their ids, or"
        raise Failure(f"name messages {which} with --state or --match; see 'pubd {decision.verb} --help'", USAGE)
    asks = not yes and (bool(chosen.given) or ask_for_ids)
    if asks and "-" in ids:
        raise Failure("with ids from standard input nobody can be asked there: say --yes", USAGE)
    if asks and not is_terminal(sys.stdin):
        raise Failure(f"nobody is there to be asked: say --yes; 'pubd list{chosen.options}' shows which", USAGE)
    tally = Tally()
    # All of them before the first is decided about.
    named = list(dict.fromkeys(_given(ids)))
    with daemon(options) as asked, output():
        if named or not chosen.given:
            slices: Iterable[list[str]] = _slices(named)
            count = len(named)
        else:
            slices, count = _matching(asked, decision, chosen)
        if not count:
            nothing = f"{chosen.state or ''} messages{chosen.rest}".strip() if chosen.given else "ids on standard input"
            click.echo(f"pubd: there are no {nothing}", err=True)
            return
        if asks:
            _ask(f"{decision.verb.capitalize()} {messages(count)}{chosen}?")
        _carry_out(asked, decision, slices, tally, as_json, count)
    if tally.refused:
        raise Failure(f"{tally.sentence(decision)}; 'pubd show ID' says what each is", REFUSED)
    click.echo(f"pubd: {tally.sentence(decision)}", err=True)


def _carry_out(
    asked: Daemon, decision: Decision, chosen: Iterable[list[str]], tally: Tally, as_json: bool, count: int
) -> None:
    """Every failure says how far it came: what was done stays done."""
    bar = _progress(count)
    try:
        for some in chosen:
            results = asked.post(decision.path, {"ids": some, **decision.more})
            if not isinstance(results, list) or len(results) != len(some):
                raise asked.strange()
            tally.count(results, as_json)
            bar(tally.done + tally.refused)
    except KeyboardInterrupt:
        raise Failure(f"interrupted; {tally.sentence(decision)}; the same command goes on", INTERRUPTED) from None
    except Failure as failure:
        if not tally.done and not tally.refused:
            raise
        so_far = f"{failure.message}; {tally.sentence(decision)} until then; the same command goes on"
        raise Failure(so_far, failure.exit_code) from None
    finally:
        bar(None)


def _progress(count: int) -> Callable[[int | None], None]:
    """Where somebody looks at a long one: how far it is, in a line that is written over; None ends it."""
    if count <= PAGE or not is_terminal(sys.stderr):
        return lambda _: None

    def show(done: int | None) -> None:
        click.echo("\r\033[K" if done is None else f"\r{done:,} of {count:,}", err=True, nl=False)

    return show


def _given(ids: tuple[str, ...]) -> Iterator[str]:
    """The ids of the command line, and for - those of standard input, separated by space."""
    for id in ids:
        if id != "-":
            yield _checked(id)
            continue
        if sys.stdin is None:
            raise Failure("there is no standard input; name the ids", USAGE)
        try:
            for line in sys.stdin:
                yield from map(_checked, line.split())
        except (OSError, UnicodeDecodeError):
            raise Failure("standard input cannot be read, or is no text; name the ids", USAGE) from None


def _checked(id: str) -> str:
    if len(id) > _LONGEST or not id.isascii() or not id.isprintable():
        raise Failure(f"{plain(id[:_LONGEST])!r} is no id; 'pubd list' shows them", USAGE)
    return id


def _slices(ids: list[str]) -> Iterator[list[str]]:
    return (ids[at : at + PAGE] for at in range(0, len(ids), PAGE))


def _matching(asked: Daemon, decision: Decision, chosen: Selection) -> tuple[Iterable[list[str]], int]:
    """The ids in pages, found while they are asked for, and how many there are now.

    None that was accepted after this moment is in them: the end is not run after.
    """
    now = moment(asked.get("/status")["time"])
    held = {} if decision.held is None else {"held": str(decision.held).lower()}
    states = (chosen.state,) if chosen.state is not None else decision.usual
    queries = [chosen.query(state) | (held if state == "parked" else {}) for state in states]

    def ids() -> Iterator[list[str]]:
        for query in queries:
            for found, _ in pages(asked, query):
                older = [record["id"] for record in found if moment(record["accepted_at"]) <= now]
                if older:
                    yield older
                if len(older) < len(found):
                    break

    return ids(), sum(counted(asked, query) for query in queries)


def _ask(question: str) -> None:
    try:
        agreed = click.confirm(question, default=False, err=True)
    except click.Abort:
        raise Failure("nothing was done", INTERRUPTED) from None
    if not agreed:
        raise Failure("nothing was done", REFUSED)


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > 1000 or not _is_utf8(reason):
        raise Failure("--reason takes a text of 1 to 1000 characters", USAGE)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
