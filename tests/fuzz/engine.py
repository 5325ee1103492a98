"""What makes inputs and tries them: atheris where it is installed, hypothesis otherwise."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MOST_BYTES = 4096


class Found(AssertionError):
    """Something did what it must not do; the input is the second argument."""


#: Whether the input is a good one. Raises Found, or what was raised, if a promise was broken.
Check = Callable[[bytes], bool]


def command(
    check: Check,
    *,
    inputs: st.SearchStrategy[bytes],
    seeds: Sequence[bytes],
    fragments: Sequence[bytes],
    instrument: Sequence[str],
    load: Sequence[str],
    doc: str,
) -> click.Command:
    """The command line of one fuzzer. With atheris the modules in ``load`` are imported with what they import
    of ``instrument``, before ``check`` is called first: it must not import them itself before that.
    """

    @click.command(help=doc)
    @click.option("--seconds", default=60.0, show_default=True, help="How long.")
    @click.option("--hypothesis", is_flag=True, help="Without atheris, even if it is installed.")
    def main(seconds: float, hypothesis: bool) -> None:
        if hypothesis or importlib.util.find_spec("atheris") is None:
            by_hypothesis(check, inputs, seconds)
        else:
            atheris = importlib.import_module("atheris")
            with atheris.instrument_imports(include=list(instrument)):
                for module in load:
                    importlib.import_module(module)
            by_atheris(atheris, check, seeds, fragments, seconds)

    return main


def by_hypothesis(check: Check, inputs: st.SearchStrategy[bytes], seconds: float) -> None:
    """Print how many inputs there were."""
    count = good = 0
    end = time.monotonic() + seconds

    @settings(
        max_examples=2000,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def some(raw: bytes) -> None:
        nonlocal count, good
        count += 1
        good += check(raw)

    while time.monotonic() < end:
        some()
    click.echo(f"{count} inputs, {good} of them good: nothing found")


def by_atheris(atheris: Any, check: Check, seeds: Sequence[bytes], fragments: Sequence[bytes], seconds: float) -> None:
    """libFuzzer ends the process itself, and says what it found."""
    with tempfile.TemporaryDirectory() as made:
        corpus, words = Path(made, "corpus"), Path(made, "words")
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / str(number)).write_bytes(seed)
        words.write_text(
            "".join('"' + "".join(f"\\x{octet:02x}" for octet in word) + '"\n' for word in fragments), "ascii"
        )
        options = [
            f"-max_total_time={int(seconds)}",
            f"-max_len={MOST_BYTES}",
            f"-dict={words}",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, str(corpus)], check)
        atheris.Fuzz()
