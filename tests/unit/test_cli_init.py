"""`pubd init`: every key is in the file, the file is right, and no other file is harmed."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pubd.cli import main
from pubd.cli.init import written
from pubd.config import Config
from pubd.config.keys import TABLES


def called(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, ["init", *map(str, arguments)], prog_name="pubd")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def uncommented(text: str) -> Iterator[tuple[str, str]]:
    """Each table's name, and what it is with every line taken in."""
    for part in re.split(r"\n(?=#?\[)", text)[1:]:
        lines = [line.removeprefix("#") for line in part.splitlines() if line and not line.startswith("# ")]
        yield lines[0].strip("[]"), "\n".join(lines)


def test_it_writes_a_file_that_pubd_takes(tmp_path: Path) -> None:
    path = tmp_path / "pubd.toml"
    done = called(path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"twistd -n pubd --config {path}" in done.stdout
    config = Config.load(path, {})
    assert config.hints == ()
    assert config.http is not None
    assert config.http.listen == ("tcp:8672:interface=127.0.0.1",)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["pubd.toml"]


def test_every_table_and_key_is_in_it_with_its_reason() -> None:
    text = written({})
    words = " ".join(line.removeprefix("# ") for line in text.splitlines())
    for table in TABLES:
        assert f"{table.heading}\n" in text
        assert table.why in words
        for key in table.keys:
            assert f"{key.name}: {key.why}" in words
            assert re.search(rf"^#{key.name} = ", text, re.MULTILINE), key.name


def test_without_its_comments_it_is_what_pubd_is_without_a_file() -> None:
    assert Config.parse(written({}), {}) == Config.parse("", {})


def test_each_line_that_is_a_comment_can_be_taken_in() -> None:
    tables = dict(uncommented(written({})))
    assert tables.keys() == {table.name for table in TABLES}
    for table in TABLES:
        content = tomllib.loads(tables[table.name])[table.name]
        (row,) = content if table.many else [content]
        assert row.keys() == {key.name for key in table.keys}
        for key in table.keys:
            key.kind.read(row[key.name]) if not key.keys else None


def test_what_is_given_stands_in_it(tmp_path: Path) -> None:
    path = tmp_path / 'a "b".toml'
    done = called(
        path,
        *("--url", "amqps://me:p%22w@a/v", "--url", "amqp://b"),
        *("--spool", "memory:", "--listen", f"unix:{tmp_path}/s"),
    )
    assert done.exit_code == 0, done.output
    config = Config.load(path, {})
    assert [url.host for url in config.broker.urls] == ["a", "b"]
    assert config.broker.urls[0].password == 'p"w'
    assert config.spool.path is None


def test_a_file_that_is_there_is_kept_unless_it_is_forced(tmp_path: Path) -> None:
    path = tmp_path / "pubd.toml"
    path.write_text("mine")
    done = called(path)
    assert done.exit_code == 1
    assert done.stderr == f"pubd: {path} is there already; name another, or write over it with --force\n"
    assert path.read_text() == "mine"
    assert called(path, "--force").exit_code == 0
    assert Config.load(path, {})
    assert os.listdir(tmp_path) == ["pubd.toml"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--url", "http://me:s3cret@a"), "--url "),
        (("--spool", "postgres://a"), "[spool] url"),
        (("--listen", "tcp:nowhere"), "[http] listen"),
        (("--listen", "tcp:8672"), "[http] listen"),
    ],
)
def test_what_would_not_be_right_is_not_written(tmp_path: Path, arguments: tuple[str, str], sentence: str) -> None:
    done = called(tmp_path / "pubd.toml", *arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "s3cret" not in done.output
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "pubd.toml", tmp_path / ("x" * 300)):
        done = called(path)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "cannot be written" in done.stderr
        assert called(path, "--force").exit_code == 1
    assert os.listdir(tmp_path) == []
