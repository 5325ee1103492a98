"""docs/send.rst says what `pubd send` has."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pubd.cli import failure, main
from pubd.cli.completion import SHELLS
from pubd.cli.connect import connect
from pubd.cli.send import send
from pubd.cli.server import DEFAULT_PORT, DEFAULT_SOCKET

PAGE = (Path(__file__).parents[2] / "docs/send.rst").read_text()
WORDS = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", PAGE))


def test_every_option_is_described_by_one_of_its_names() -> None:
    for option in send.params:
        assert isinstance(option, click.Option)
        assert option.help
        for names in (option.opts, option.secondary_opts):
            assert not names or WORDS & set(names), names


def test_no_option_is_described_that_does_not_exist() -> None:
    existing = {name for option in send.params for name in (*option.opts, *option.secondary_opts)}
    assert existing >= WORDS


def test_the_table_of_exit_codes_is_complete() -> None:
    table = PAGE.split(":class: exit-codes", 1)[1].split("Of several lines", 1)[0]
    codes = {int(code) for row in re.findall(r"^   \* - ([\d, ]+)$", table, re.MULTILINE) for code in row.split(",")}
    known = {value for name, value in vars(failure).items() if isinstance(value, int)}
    assert codes == {0} | known


def test_the_places_of_the_daemon_are_told() -> None:
    assert str(DEFAULT_SOCKET) in PAGE
    assert f"http://127.0.0.1:{DEFAULT_PORT}" in PAGE


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_its_line(shell: str) -> None:
    assert f"pubd completion {shell}" in PAGE


def test_the_commands_are_there() -> None:
    context = click.Context(main)
    assert main.get_command(context, "send") is send
    assert set(main.list_commands(context)) >= {"send", "completion"}


def test_what_every_command_has_to_find_the_daemon_is_what_connect_takes() -> None:
    names = {"server", "token", "token_file", "cacert", "cert", "key"}
    assert names <= {option.name for option in send.params}
    assert names == set(connect.__annotations__) - {"return"}
