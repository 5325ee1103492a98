"""`pubd token new` as its users run it, and that the daemon's configuration takes what it prints."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from pubd.access import Access
from pubd.access.tokens import hash_of
from pubd.config import Config
from tests.service.process import BIN
from tests.service.test_cli import pubd

TOKEN = r"pubd_[A-Za-z0-9_-]{43}"


def test_the_token_alone_is_on_stdout_and_its_hash_alone_on_stderr() -> None:
    done = pubd("token", "new", "shop")
    assert done.returncode == 0
    assert re.fullmatch(TOKEN + "\n", done.stdout)
    token = done.stdout.strip()
    assert token not in done.stderr
    assert "'pubd reload'" in done.stderr
    assert f"shop:{hash_of(token)}\n" in done.stderr


def test_the_table_that_it_prints_makes_the_token_known(tmp_path: Path) -> None:
    done = json.loads(pubd("token", "new", "shop", "--json").stdout)
    assert sorted(done) == ["hash", "line", "name", "token", "toml"]
    assert done["hash"] == hash_of(done["token"])
    assert done["line"] == f"shop:{done['hash']}"
    config = Config.parse(done["toml"], {})
    assert not config.hints
    found = Access(config.access.principals, anonymous=config.access.anonymous).by_token(done["token"])
    assert found is not None
    assert found.name == "shop"

    printed = pubd("token", "new", "shop")
    start = printed.stderr.index("[[principal]]")
    pasted = tomllib.loads(printed.stderr[start : printed.stderr.index("\n\n", start)])
    assert pasted["principal"][0]["tokens"] == [hash_of(printed.stdout.strip())]

    tokens = tmp_path / "tokens"
    tokens.write_text(printed.stderr.rstrip().rpartition("\n")[2] + "\n")
    tokens.chmod(0o600)
    text = f"[access]\ntokens_file = '{tokens}'\n{done['toml']}"
    assert len(Config.parse(text, {}).access.principals[0].tokens) == 2


def test_no_two_are_alike() -> None:
    assert len({pubd("token", "new", "a").stdout for _ in range(3)}) == 3


def test_the_hash_is_what_sha256sum_says() -> None:
    done = json.loads(pubd("token", "new", "--json", "shop").stdout)
    said = subprocess.run(["sha256sum"], input=done["token"].encode(), capture_output=True, check=True).stdout
    assert done["hash"] == "sha256:" + said.decode().split()[0]


@pytest.mark.parametrize("name", ["", "a:b", "-x", "a b", "ä", 'a"', "a" * 65, "a\n", "local", b"\xff"])
def test_a_name_that_cannot_be_one_is_refused(name: str | bytes) -> None:
    done = pubd("token", "new", "--", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert "letter" in done.stderr or "another name" in done.stderr


def test_without_a_name_it_says_what_is_missing() -> None:
    done = pubd("token", "new")
    assert done.returncode == 2
    assert "NAME" in done.stderr
    assert pubd("token", "new", "--help").returncode == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_token_that_cannot_be_written_is_said_to_be_nobodys(options: tuple[str, ...]) -> None:
    line = ["sh", "-c", 'exec "$0" "$@" > /dev/full', str(BIN / "pubd")]
    done = subprocess.run([*line, "token", "new", "shop", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    reason = "the token cannot be written (No space left on device); nobody has it, make another one"
    assert done.stderr == f"pubd: {reason}\n"
