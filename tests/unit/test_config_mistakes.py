"""pubd.toml: each mistake gets a sentence that names line, key and fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pubd.config import Config
from tests.config_texts import PASSWORD, problem, problems

if TYPE_CHECKING:
    pass


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        # The twenty most likely ones.
        ('[broker]\nurl = "amqp://h"', ":2: [broker] url:", ["did you mean urls?"]),
        ('[broker]\nurls = "amqp://h"', ":2: [broker] urls:", ["must be an array", "[ ]"]),
        ('[broker]\nurls = ["localhost"]', ":2: [broker] urls[0]:", ["scheme", "amqp://"]),
        ('[broker]\nurls = ["amqp://u:p@ss@h"]', ":2: [broker] urls[0]:", ["%40"]),
        ('[broker]\nurls = ["amqp://h?cacertfile=/c"]', ":2: [broker] urls[0]:", ["cacertfile", "amqps://"]),
        ("[delivry]\nwindow = 1", ":1: 'delivry':", ["did you mean [delivery]?"]),
        ("\nwindow = 1", ":2: 'window':", ["stands in no table", "[delivery]"]),
        ("[spool]\nwindow = 1", ":2: [spool] window:", ["belongs below [delivery]"]),
        ("[delivery]\nconfirm-timeout = 1", ":2: [delivery] confirm-timeout:", ["did you mean confirm_timeout?"]),
        ('[delivery]\nwindow = "100"', ":2: [delivery] window:", ["whole number without quotes"]),
        ("[delivery]\nwindow = 0", ":2: [delivery] window:", ["from 1 to", "not 0"]),
        ('[delivery]\nmandatory = "true"', ":2: [delivery] mandatory:", ["true or false without quotes"]),
        ('[delivery]\non_return = "parked"', ":2: [delivery] on_return:", ["'parked'", "did you mean park?"]),
        ("[delivery]\nconfirm_timeout = 30s", ":2:21: confirm_timeout:", ["not valid TOML", "double quotes"]),
        ('[spool]\nmax_bytes = "1 gig"', ":2: [spool] max_bytes:", ["unknown unit 'gig'", "GiB"]),
        ('[spool]\nurl = "sqlite://pubd.db"', ":2: [spool] url:", ["too few slashes", "sqlite:///pubd.db"]),
        ('[exchange]\nname = "x"', ":1: [[exchange]]:", ["double brackets"]),
        ('[[exchange]]\nname = "x"\ntype = "topics"', ":3: [[exchange]] 'x' type:", ["did you mean topic?"]),
        ('[[binding]]\nexchange = "x"', ":1: [[binding]] number 1:", ["one of queue and destination_exchange"]),
        (
            '[[schedule]]\nname = "s"\nexchange = "e"\ncron = "60 * * * *"',
            ":4: [[schedule]] 's' cron:",
            ["wrong minute", "0 to 59", "five fields"],
        ),
        # And some more.
        ('[[broker]]\nname = "x"', ":1: [broker]:", ["one of these only", "write [broker]"]),
        ("broker = 1", ":1: [broker]:", ["write [broker]"]),
        ("queue = 1", ":1: [[queue]]:", ["must be tables", "write [[queue]]"]),
        ("queue = [1]", ":1: [[queue]]:", ["must be tables"]),
        ("[kafka]", ":1: 'kafka':", ["no such table", "[broker]"]),
        ("[broker]\nurls = []", ":2: [broker] urls:", ["is empty"]),
        ("[broker]\nurls = [1]", ":2: [broker] urls[0]:", ["not a number"]),
        ('[broker]\nheartbeat = "0.5s"', ":2: [broker] heartbeat:", ["whole seconds"]),
        ("[broker]\nname = ''", ":2: [broker] name:", ["is empty"]),
        (f"[broker]\nname = '{'n' * 300}'", ":2: [broker] name:", ["255"]),
        ("[spool]\nretain = 0", ":2: [spool] retain:", ["at least"]),
        ("[spool]\nretain = true", ":2: [spool] retain:", ["duration", "not true or false"]),
        ("[spool]\nurl = 'postgresql://u:s3cr3t@h/db'", ":2: [spool] url:", ["no spool postgresql:"]),
        ("[spool]\nurl = 'sqlite:///:memory:'", ":2: [spool] url:", ["memory:"]),
        ("[spool]\nurl = 'sqlite:///a.db?x=1'", ":2: [spool] url:", ["no parameters"]),
        ("[spool]\nurl = 'sqlite:///'", ":2: [spool] url:", ["names no file"]),
        ("[spool]\nurl = 'pubd.db'", ":2: [spool] url:", ["sqlite:///PATH"]),
        (
            "[delivery]\nbackoff = { first = '10m', max = '5m' }",
            ":2: [delivery] backoff:",
            ["first (600 s) is longer than max (300 s)"],
        ),
        ("[delivery]\nbackoff = '5s'", ":2: [delivery] backoff:", ["must be a table", "{ first ="]),
        ("[delivery]\n[delivery.backoff]\nfactor = 0", ":3: [delivery] backoff.factor:", ["1 to 1000"]),
        ("[[policy]]\nexchange = 'p'\npark_to = 'p'", ":3: [[policy]] number 1 park_to:", ["another exchange"]),
        ("[[queue]]\ndurable = true", ":1: [[queue]] number 1 name:", ["is missing", "write name ="]),
        ("[[queue]]\nname = 'q'\n[[queue]]\nname = 'q'", ":4: [[queue]] 'q' name:", ["is taken"]),
        ("[[queue]]\nname = 'q'\narguments = { x = 1.5 }", ":3: [[queue]] 'q' arguments['x']:", ["write it as text"]),
        (
            "[[schedule]]\nname = 's'\nexchange = ''",
            ":1: [[schedule]] 's':",
            ["no time to run at", "every =", "cron ="],
        ),
        (
            "[[schedule]]\nname = 's'\nexchange = ''\nevery = 1\ncron = '* * * * *'",
            ":5: [[schedule]] 's' cron:",
            ["together with every"],
        ),
        (
            "[[schedule]]\nname = 's'\nexchange = ''\nevery = 1\ntimezone = 'UTC'",
            ":5: [[schedule]] 's' timezone:",
            ["is about cron"],
        ),
        (
            "[[schedule]]\nname = 's'\nexchange = ''\ncron = '* * * * *'\ntimezone = 'Europe/Berln'",
            ":5: [[schedule]] 's' timezone:",
            ["did you mean Europe/Berlin?"],
        ),
        (
            "[[schedule]]\nname = 's'\nexchange = ''\nevery = 1\nbody = '{epoc}'",
            ":5: [[schedule]] 's' body:",
            ["did you mean {epoch}?"],
        ),
        # Not TOML at all.
        ("[broker\n", ":1:8: [broker:", ["ends with ]"]),
        ("[broker]\nname = pubd", ":2:8: name:", ["double quotes"]),
        ("[broker]\nname", ":2: name:", ["followed by ="]),
        ('[broker]\nname = "x\nheartbeat = 3', ":2:10: name:", ["quotation mark"]),
        ('[broker]\nname = """x\nheartbeat = 3\n', ":2: name:", ["quotation mark"]),
        ("[broker]\nurls = [\n'amqp://h',\nheartbeat = 3", ":4:1: urls:", ["began on line 2"]),
        ("[broker]\nname = 'x'\nname = 'y'", ":3: name:", ["given twice"]),
        ("[broker]\nname = 'x'\nname = 'y'\n[spool]", ":3:11: name:", ["given twice"]),
        ("[broker]\n[spool]\n[broker]\n", ":3:8: [broker:", ["given twice"]),
        ("[broker]\nname = 'x' # \x00", ":2:", ["character"]),
        ("a = " + "[" * 5000, "", ["nested too deeply"]),
        ("a = " + "1" * 5000, "", ["too many digits"]),
    ],
)
def test_a_mistake_names_its_line_its_key_and_the_fix(text: str, place: str, words: list[str]) -> None:
    sentence = problem(text)
    assert sentence.startswith(f"pubd.toml{place}"), sentence
    assert all(word in sentence for word in words), sentence
    assert PASSWORD not in sentence


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "[delivery]\nwindow = 0\nheal = 1\n[broker]\nurls = []\n[[queue]]\n[[queue]]\nnmae = 'x'\n[spol]"
    found = problems(text, {"PUBD_SPOOL_URL": "x"})
    assert [(each.line, each.key) for each in found] == [
        (2, "window"),
        (3, "heal"),
        (5, "urls"),
        (6, "name"),
        (7, "name"),
        (8, "nmae"),
        (9, "'spol'"),
        (None, ""),
    ]


def test_a_name_much_like_a_declared_one_is_a_hint() -> None:
    text = """
[[exchange]]
name = "message"
[[binding]]
exchange = "mesage"
queue = "elsewhere"
[[binding]]
exchange = "amq.topic"
queue = "elsewhere"
"""
    (hint,) = Config.parse(text, {}).hints
    assert str(hint) == (
        "pubd.toml:5: [[binding]] number 1 exchange: 'mesage' is not declared in this file; did you mean 'message'?"
    )


def test_a_policy_that_can_never_match_is_a_hint() -> None:
    (hint,) = Config.parse('[[policy]]\n[[policy]]\nexchange = "x"', {}).hints
    assert str(hint) == "pubd.toml:2: [[policy]] number 2: is never used: one before it is for every message"


def test_a_large_file_with_a_mistake_at_its_end_is_answered_at_once() -> None:
    text = (
        "".join(f"[[queue]]\nname = 'q{number}'\n" for number in range(1000))
        + "[[schedule]]\nname = 's'\nexchange = ''\nevery = 1\nbody = '''\n"
        + "text\n" * 5000
        + "'''\n[spool]\nretain = 0\n"
    )
    # The body has more lines than a statement that is looked for; its own line and those before it are known.
    assert ": [spool] retain: must be at least" in problem(text)
    assert problem(text.replace("text\n" * 5000, "te]xt\n" * 400)).startswith("pubd.toml:2408: [spool] retain:")
