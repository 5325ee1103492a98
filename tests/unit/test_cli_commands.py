"""The command itself: what it says of its commands."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pubd.cli import COMMANDS, main


def test_help_has_each_command_with_a_whole_sentence_in_eighty_columns() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    for name in COMMANDS:
        assert f"  {name} " in said
    assert "..." not in said.partition("Set up")[2]
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_there_and_describes_itself(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert (done.exit_code, f"Usage: main {name}" in done.output) == (0, True)


def test_a_word_that_is_no_command_is_answered_with_the_next_one() -> None:
    done = CliRunner().invoke(main, ["stauts"])
    assert (done.exit_code, "did you mean status?" in done.output) == (2, True)
    done = CliRunner().invoke(main, ["xyzzy"])
    assert (done.exit_code, "did you mean" in done.output) == (2, False)
