"""[access] and [[principal]] of pubd.toml: what is read, and each mistake with its line, key and fix."""

from __future__ import annotations

import grp
import os
import pwd
import random
import re
from pathlib import Path

import pytest

from pubd.access import LOCAL, Access, Grant
from pubd.access.tokens import hash_of, new_token
from pubd.config import Config
from tests.config_texts import problem, problems

# The same in every run: it is part of the names of tests, which several processes are to agree on.
TOKEN = new_token(random.Random(1).randbytes)
HASH = hash_of(TOKEN)
OTHER = hash_of(new_token(random.Random(2).randbytes))
ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name
SHOP = "[[principal]]\nname = 'shop'\n"
FULL = f"""\
[access]
anonymous = "scripts"

[[principal]]
name = "shop"
grants = [{{ exchange = "orders*", routing_key = "order.#" }}, {{ exchange = "" }}, {{ routing_key = "a.*" }}]
operate = true
rate = 100
byte_rate = "1MiB"
tokens = ["{HASH}", "{OTHER.upper().replace("SHA", "sha")}", "{HASH}"]
users = ["{ME}", 4294967294]
groups = ["{MINE}", 7]
certificates = ["shop.example"]

[[principal]]
name = "scripts"
users = [0, 0]
rate = "unlimited"

[[principal.grants]]
exchange = "logs"
"""


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A file for tokens, nobody else's."""
    path = tmp_path / "tokens"
    path.touch(0o600)
    return path


ROOT = Path(__file__).parents[2]

# What is read


def test_without_anything_whoever_is_local_may_do_everything() -> None:
    access = Config.parse("", {}).access
    assert (access.principals, access.anonymous) == ((), LOCAL)


def test_everything_that_stands_in_a_file_is_read() -> None:
    config = Config.parse(FULL.replace("users = [0, 0]", "users = [123456]"), {})
    assert config.hints == ()
    shop, scripts = config.access.principals
    assert shop.grants == (
        Grant(exchange="orders*", routing_key="order.#"),
        Grant(exchange="", routing_key="#"),
        Grant(exchange="*", routing_key="a.*"),
    )
    assert (shop.name, shop.operate, shop.rate, shop.byte_rate) == ("shop", True, 100, 1 << 20)
    assert shop.tokens == (HASH, OTHER)
    assert (shop.users, shop.groups) == ((os.getuid(), 2**32 - 2), tuple(dict.fromkeys((os.getgid(), 7))))
    assert shop.certificates == ("shop.example",)
    assert scripts.grants == (Grant(exchange="logs"),)
    assert (scripts.users, scripts.rate, scripts.byte_rate, scripts.operate) == ((123456,), None, None, False)
    access = Access(config.access.principals, anonymous=config.access.anonymous)
    assert access.anonymous == scripts
    assert access.by_token(TOKEN) is shop
    assert access.by_peer(os.getuid(), 0) is shop


@pytest.mark.parametrize(
    ("text", "anonymous"),
    [
        ("", "local"),
        ("[access]\nanonymous = true", "local"),
        (f"{SHOP}users = [1]\noperate = true", None),
        (f"[access]\nanonymous = false\n{SHOP}users = [1]\noperate = true", None),
        (f"[access]\nanonymous = true\n{SHOP}users = [1]\noperate = true", "local"),
        (f"[access]\nanonymous = 'shop'\n{SHOP}operate = true", "shop"),
    ],
)
def test_who_shows_nothing(text: str, anonymous: str | None) -> None:
    config = Config.parse(text, {})
    assert config.hints == ()
    found = config.access.anonymous
    assert (found.name if found is not None else None) == anonymous


@pytest.mark.parametrize(("value", "anonymous"), [("false", None), (" TRUE", "local"), ("shop", "shop")])
def test_the_environment_goes_first(value: str, anonymous: str | None) -> None:
    text = f"[access]\nanonymous = true\n{SHOP}operate = true\nusers = [1]"
    found = Config.parse(text, {"PUBD_ACCESS_ANONYMOUS": value}).access.anonymous
    assert (found.name if found is not None else None) == anonymous


def test_tokens_come_from_a_file_too(tokens: Path) -> None:
    tokens.write_text(f"\ufeff# made today\n\n shop : {OTHER.upper().replace('SHA', 'sha')} \r\nother:{HASH}\r\n")
    text = f"[access]\ntokens_file = 'tokens'\n{SHOP}tokens = ['{hash_of('x')}']\noperate = true\n"
    text += "[[principal]]\nname = 'other'\noperate = true"
    config = Config.parse(text, {}, tokens.with_name("pubd.toml"))
    assert config.hints == ()
    assert [each.tokens for each in config.access.principals] == [(hash_of("x"), OTHER), (HASH,)]


def test_a_file_that_the_environment_names_is_relative_to_the_working_directory(
    tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.write_text(f"shop:{HASH}\n")
    monkeypatch.chdir(tokens.parent)
    environ = {"PUBD_ACCESS_TOKENS_FILE": "tokens"}
    found = Config.parse(f"{SHOP}operate = true", environ, Path("/nowhere/pubd.toml")).access.principals
    assert found[0].tokens == (HASH,)


# Mistakes


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[[principal]]\nusers = [1]", ":1: [[principal]] number 1 name:", ["is missing", 'name = "shop"']),
        ("[principal]\nname = 'x'", ":1: [[principal]]:", ["double brackets"]),
        ("[[principals]]\nname = 'x'", ":1:", ["did you mean [[principal]]?"]),
        ("[[principal]]\nname = 'a:b'", ":2: [[principal]] 'a:b' name:", ["1 to 64 letters"]),
        ("[[principal]]\nname = ''", ":2: [[principal]] '' name:", ["1 to 64 letters"]),
        ("[[principal]]\nname = 5", ":2: [[principal]] number 1 name:", ["text in double quotes"]),
        ("[[principal]]\nname = 'local'", ":2: [[principal]] 'local' name:", ["whoever shows nothing", "another name"]),
        (f"{SHOP}[[principal]]\nname = 'shop'", ":4: [[principal]] 'shop' name:", ["is taken", "another name"]),
        (f"{SHOP}token = 'x'", ":3: [[principal]] 'shop' token:", ["did you mean tokens?"]),
        (f"{SHOP}anonymous = true", ":3: [[principal]] 'shop' anonymous:", ["belongs below [access]"]),
        (f"{SHOP}grants = {{ exchange = 'a' }}", ":3: [[principal]] 'shop' grants:", ["an array", "write [ ] around"]),
        (f"{SHOP}grants = 'orders'", ":3: [[principal]] 'shop' grants:", ["an array such as [{ exchange ="]),
        (f"{SHOP}grants = ['a']", ":3: [[principal]] 'shop' grants[0]:", ["must be a table such as { exchange ="]),
        (f"{SHOP}grants = [{{}}]", ":3: [[principal]] 'shop' grants[0]:", ["is empty", 'exchange = "*"']),
        (
            f"{SHOP}grants = [{{ exchange = 'a' }}, {{ exchnge = 'a' }}]",
            ":3: [[principal]] 'shop' grants[1].exchnge:",
            ["did you mean exchange?"],
        ),
        (f"{SHOP}grants = [{{ queue = 'a' }}]", ":3: [[principal]] 'shop' grants[0].queue:", ["exchange, routing_key"]),
        (f"{SHOP}grants = [{{ exchange = ['a'] }}]", ":3: [[principal]] 'shop' grants[0].exchange:", ["double quotes"]),
        (f"{SHOP}[[principal.grants]]\nexchange = 5", "[[principal]] 'shop' grants[0].exchange:", ["double quotes"]),
        (f"{SHOP}operate = 'true'", ":3: [[principal]] 'shop' operate:", ["without quotes"]),
        (f"{SHOP}rate = 0", ":3: [[principal]] 'shop' rate:", ["more than 0", '"unlimited" is allowed']),
        (f"{SHOP}rate = -1", ":3: [[principal]] 'shop' rate:", ["more than 0"]),
        (f"{SHOP}rate = nan", ":3: [[principal]] 'shop' rate:", ["more than 0"]),
        (f"{SHOP}rate = inf", ":3: [[principal]] 'shop' rate:", ["at most 1000000000"]),
        (f"{SHOP}rate = true", ":3: [[principal]] 'shop' rate:", ["such as 100 or 0.5", "not true"]),
        (f"{SHOP}rate = '5/s'", ":3: [[principal]] 'shop' rate:", ["number of messages a second"]),
        (f"{SHOP}byte_rate = 0", ":3: [[principal]] 'shop' byte_rate:", ["at least 1 bytes"]),
        (f"{SHOP}byte_rate = '1 MB/s'", ":3: [[principal]] 'shop' byte_rate:", ["64MiB"]),
        (f"{SHOP}tokens = '{HASH}'", ":3: [[principal]] 'shop' tokens:", ["an array", "[ ]"]),
        (f"{SHOP}tokens = ['{TOKEN}']", ":3: [[principal]] 'shop' tokens[0]:", ["no longer secret", "pubd token new"]),
        (f"{SHOP}tokens = ['{HASH}', 'hunter2']", ":3: [[principal]] 'shop' tokens[1]:", ["no hash", "sha256:"]),
        (f"{SHOP}tokens = ['{HASH[:-1]}']", ":3: [[principal]] 'shop' tokens[0]:", ["64 hexadecimal digits"]),
        (f"{SHOP}tokens = ['{HASH[7:]}']", ":3: [[principal]] 'shop' tokens[0]:", ["write sha256:"]),
        (f"{SHOP}tokens = [5]", ":3: [[principal]] 'shop' tokens[0]:", ["text in double quotes"]),
        (
            f"{SHOP}tokens = ['{HASH}']\n[[principal]]\nname = 'b'\ntokens = ['{HASH}']",
            ":6: [[principal]] 'b' tokens:",
            ["one of them is principal 'shop' already", "keep it at one"],
        ),
        (
            f"{SHOP}users = ['no such user']",
            ":3: [[principal]] 'shop' users[0]:",
            ["there is no user", "or its number"],
        ),
        (f"{SHOP}users = ['4711']", ":3: [[principal]] 'shop' users[0]:", ["numbers without quotes"]),
        (f"{SHOP}users = ['a\\u0000']".replace("'", '"'), ":3:", ["there is no user"]),
        (f"{SHOP}users = [-1]", ":3: [[principal]] 'shop' users[0]:", ["0 to 4294967294"]),
        (f"{SHOP}users = [4294967295]", ":3: [[principal]] 'shop' users[0]:", ["0 to 4294967294"]),
        (f"{SHOP}users = [true]", ":3: [[principal]] 'shop' users[0]:", ["name or number of a user", "not true"]),
        (f"{SHOP}users = 1000", ":3: [[principal]] 'shop' users:", ["an array", "even for one"]),
        (
            f"{SHOP}users = ['{ME}']\n[[principal]]\nname = 'b'\nusers = [{os.getuid()}]",
            ":6: [[principal]] 'b' users:",
            [f"{os.getuid()} is principal 'shop' already"],
        ),
        (f"{SHOP}groups = ['no such group']", ":3: [[principal]] 'shop' groups[0]:", ["there is no group"]),
        (f"{SHOP}certificates = ['']", ":3: [[principal]] 'shop' certificates[0]:", ["no name of a certificate"]),
        (f"{SHOP}certificates = ['*.x']", ":3: [[principal]] 'shop' certificates[0]:", ["without wildcards"]),
        (
            f"{SHOP}certificates = ['A']\n[[principal]]\nname = 'b'\ncertificates = ['a']",
            ":6: [[principal]] 'b' certificates:",
            ["'a' is principal 'shop' already"],
        ),
        ("[[access]]\nanonymous = true", ":1: [access]:", ["there is one of these only"]),
        ("[access]\nanonymos = true", ":2: [access] anonymos:", ["did you mean anonymous?"]),
        ("[access]\nanonymous = 'true'", ":2: [access] anonymous:", ["without quotes"]),
        ("[access]\nanonymous = 1", ":2: [access] anonymous:", ["true or false, or the name of a principal"]),
        ("[access]\nanonymous = ''", ":2: [access] anonymous:", ["1 to 64 letters"]),
        ("[access]\nanonymous = 'x'", ":2: [access] anonymous:", ["there is no [[principal]] 'x'", "add one"]),
        (f"[access]\nanonymous = 'shpo'\n{SHOP}", ":2: [access] anonymous:", ["did you mean shop?"]),
        ("[access]\ntokens_file = 5", ":2: [access] tokens_file:", ["text in double quotes"]),
        ("[access]\ntokens_file = 'nowhere'", ":2: [access] tokens_file:", ["No such file", "permissions"]),
        ("[access]\ntokens_file = ''", ":2: [access] tokens_file:", ["is no regular file"]),
        ("[access]\ntokens_file = '/dev/zero'", ":2: [access] tokens_file:", ["is no regular file"]),
        ('[access]\ntokens_file = "a\\u0000b"', ":2: [access] tokens_file:", ["is no path"]),
    ],
)
def test_a_mistake_names_its_line_its_key_and_the_fix(text: str, place: str, words: list[str]) -> None:
    sentence = problem(text)
    assert sentence.startswith("pubd.toml:"), sentence
    assert place in sentence, sentence
    assert all(word in sentence for word in words), sentence
    for secret in (TOKEN[5:20], HASH[7:20], "hunter2"):
        assert secret not in sentence


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("shop", "is no line NAME:HASH"),
        (TOKEN, "is no line NAME:HASH"),
        (f"{TOKEN}:shop", "is no line NAME:HASH"),
        (HASH, "there is no [[principal]] 'sha256'"),
        (f":{HASH}", "there is no [[principal]] ''"),
        (f"shpo:{HASH}", "did you mean shop?"),
        (f"shop:{TOKEN}", "no longer secret"),
        ("shop:", "64 hexadecimal digits"),
        (f"shop:{HASH} # new", "64 hexadecimal digits"),
        (f"shop:{HASH}\x00", "64 hexadecimal digits"),
    ],
)
def test_a_mistake_in_the_file_of_tokens_is_told_with_its_line(tokens: Path, line: str, words: str) -> None:
    tokens.write_text(f"# tokens\n{line}\nshop:{OTHER}\n")
    sentence = problem(f"[access]\ntokens_file = '{tokens}'\n{SHOP}")
    assert sentence.startswith(f"{tokens}:2: "), sentence
    assert words in sentence
    assert TOKEN[5:20] not in sentence


def test_a_token_of_the_file_that_is_another_principals_is_a_mistake(tokens: Path) -> None:
    tokens.write_text(f"shop:{HASH}\nb:{HASH}\n")
    text = f"[access]\ntokens_file = '{tokens}'\n{SHOP}\n[[principal]]\nname = 'b'\n"
    assert problem(text).startswith("pubd.toml:6: [[principal]] 'b' tokens: one of them is principal 'shop' already")


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff", "is not UTF-8"), (b"#" * (1 << 20) + b"\n", "has more than 1048576 bytes")]
)
def test_a_file_that_is_none_of_tokens_is_refused(tokens: Path, content: bytes, words: str) -> None:
    tokens.write_bytes(content)
    assert words in problem(f"[access]\ntokens_file = '{tokens}'")


def test_a_pipe_does_not_stop_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in problem(f"[access]\ntokens_file = '{tmp_path / 'pipe'}'")
    assert "is no regular file" in problem(f"[access]\ntokens_file = '{tmp_path}'")


def test_a_file_that_everybody_can_change_is_refused(tokens: Path) -> None:
    tokens.chmod(0o602)
    assert "can be changed by everybody" in problem(f"[access]\ntokens_file = '{tokens}'")


def test_a_file_that_others_can_read_is_a_hint(tokens: Path) -> None:
    tokens.chmod(0o640)
    (hint,) = Config.parse(f"[access]\ntokens_file = '{tokens}'", {}).hints
    assert str(hint).startswith("pubd.toml:2: [access] tokens_file:")
    assert str(hint).endswith("is open to others than its owner; chmod 600 it")


def test_all_mistakes_are_told_at_once(tokens: Path) -> None:
    tokens.write_text("x\ny:z\n")
    text = f"[access]\ntokens_file = '{tokens}'\nanonymous = 'x'\n{SHOP}rate = 0\nusers = [-1]\n{SHOP}"
    found = problems(text)
    assert [(each.line, each.key) for each in found] == [
        (3, "anonymous"),
        (6, "rate"),
        (7, "users[0]"),
        (9, "name"),
        (1, ""),
        (2, ""),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "[access]\nanonymous = false",
            ":2: [access] anonymous: lets nobody in, since there is no [[principal]]; add one",
        ),
        (
            f"{SHOP}operate = true",
            ":1: [[principal]] 'shop': is nobody: it has no tokens, users, groups or certificates",
        ),
        (f"{SHOP}users = [1]", ":1: [[principal]] 'shop': may do nothing; add grants ="),
        (
            f"{SHOP}operate = true\nusers = [1]\ngroups = [65534]",
            ":5: [[principal]] 'shop' groups: 65534 is also whoever the kernel cannot name here",
        ),
        (
            f"{SHOP}users = [1]\ngrants = [{{ exchange = 'orders.#' }}]",
            ":4: [[principal]] 'shop' grants[0].exchange: # is a plain character here",
        ),
        (
            f"{SHOP}users = [1]\ngrants = [{{ exchange = 'a' }}, {{ routing_key = 'order*' }}]",
            ":4: [[principal]] 'shop' grants[1].routing_key: * and # stand for whole words",
        ),
    ],
)
def test_what_was_hardly_meant_is_a_hint(text: str, hint: str) -> None:
    (found,) = Config.parse(text, {}).hints
    assert str(found).startswith(f"pubd.toml{hint}"), str(found)


def test_the_examples_in_the_documentation_are_valid() -> None:
    text = (ROOT / "docs/access.rst").read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", text)
    assert blocks
    for block in blocks:
        assert Config.parse(re.sub(r"^   ", "", block, flags=re.MULTILINE), {}).hints == (), block


def test_the_token_in_the_documentation_has_the_hash_that_is_beside_it() -> None:
    text = (ROOT / "docs/access.rst").read_text(encoding="utf-8")
    (token,) = set(re.findall(r"pubd_[A-Za-z0-9_-]{43}", text))
    assert f"shop:{hash_of(token)}\n" in text
