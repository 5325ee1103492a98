"""What a new configuration changes: every difference is told, nothing else, and no secret."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pubd.access.tokens import hash_of
from pubd.config import Config
from pubd.config.changes import Change, changes, refusals

SECRET = "s3cret"

#: Values that a key may have; the first stands for "not given".
KEYS: dict[tuple[str, str], list[str]] = {
    ("broker", "urls"): ["", '["amqp://u:s3cret@a"]', '["amqp://u:s3cret2@a"]', '["amqp://u:s3cret@b"]'],
    ("broker", "heartbeat"): ["", '"10s"', '"20s"'],
    ("broker", "on_channel_close"): ["", '"shutdown"'],
    ("spool", "url"): ["", '"memory:"'],
    ("spool", "max_bytes"): ["", '"unlimited"', '"5MiB"', "1234567"],
    ("spool", "retain"): ["", '"1d"'],
    ("delivery", "window"): ["", "5", "500"],
    ("delivery", "mandatory"): ["", "false"],
    ("delivery", "on_return"): ["", '"retry"'],
    ("delivery", "lifetime"): ["", '"1d"', '"2d"'],
    ("delivery", "backoff"): ["", '{ first = "2s" }', '{ first = "2s", factor = 3 }'],
    ("http", "listen"): ["", '["unix:h.sock"]', '["tcp:1:interface=127.0.0.1", "unix:h.sock"]'],
    ("http", "max_wait"): ["", '"5s"'],
    ("lines", "listen"): ["", '["unix:l.sock"]'],
    ("lines", "idle_timeout"): ["", '"1h"'],
    ("log", "level"): ["", '"debug"'],
    ("log", "levels"): ["", '{ "pubd.amqp" = "debug" }'],
}
ROWS = [
    '[[exchange]]\nname = "e"\ntype = "{}"\n',
    '[[queue]]\nname = "q"\narguments = {{ x = "{}" }}\n',
    '[[binding]]\nexchange = "e"\nqueue = "q"\nrouting_key = "{}"\n',
    '[[policy]]\nexchange = "{}*"\n',
    '[[schedule]]\nname = "s"\nevery = "1m"\nexchange = "e"\nbody = "s3cret {}"\nheaders = {{ h = "s3cret {}" }}\n',
    '[[principal]]\nname = "p"\ngrants = [{{ exchange = "{}" }}]\n',
]
WORDS = ["direct", "topic", "fanout"]


@st.composite
def configurations(draw: st.DrawFn) -> tuple[dict[tuple[str, str], str], list[str], str]:
    """The keys, the rows, and the text."""
    keys = {key: draw(st.sampled_from(values)) for key, values in KEYS.items()}
    chosen = draw(st.lists(st.tuples(st.sampled_from(ROWS), st.sampled_from(WORDS)), unique_by=lambda row: row[0]))
    rows = [row.format(word, word) for row, word in chosen]
    tables: dict[str, list[str]] = {}
    for (table, key), value in keys.items():
        if value:
            tables.setdefault(table, []).append(f"{key} = {value}\n")
    text = "".join(f"[{table}]\n{''.join(lines)}" for table, lines in tables.items())
    return keys, rows, text + "".join(rows)


@given(configurations(), configurations())
def test_every_difference_is_told_and_nothing_else(
    one: tuple[dict[tuple[str, str], str], list[str], str], other: tuple[dict[tuple[str, str], str], list[str], str]
) -> None:
    old, new = Config.parse(one[2], {}), Config.parse(other[2], {})
    found = changes(old, new)
    told = {(change.table.strip("[]"), change.key.partition(".")[0]) for change in found if "[[" not in change.table}
    assert told == {key for key in KEYS if one[0][key] != other[0][key]}
    of_rows = {change.table.partition(" ")[0].strip("[]") for change in found if "[[" in change.table}
    differing = {row.partition("]]")[0].strip("[") for row in set(one[1]) ^ set(other[1])}
    assert of_rows == differing
    assert bool(found) == (old != new)
    assert SECRET not in "".join(map(str, found))


@given(configurations(), configurations())
def test_backwards_it_is_the_other_way_round(
    one: tuple[dict[tuple[str, str], str], list[str], str], other: tuple[dict[tuple[str, str], str], list[str], str]
) -> None:
    old, new = Config.parse(one[2], {}), Config.parse(other[2], {})
    forth = {(each.table, each.key, each.old, each.new, each.restart) for each in changes(old, new)}
    back = {(each.table, each.key, each.new, each.old, each.restart) for each in changes(new, old)}
    assert forth == back


@given(configurations())
def test_the_same_changes_nothing(one: tuple[dict[tuple[str, str], str], list[str], str]) -> None:
    assert changes(Config.parse(one[2], {}), Config.parse(one[2] + "# a comment\n", {})) == ()


def told(old: str, new: str, path: Path | str = "pubd.toml") -> list[str]:
    return [str(change) for change in changes(Config.parse(old, {}, path), Config.parse(new, {}, path))]


def test_values_are_told_as_they_stand_in_the_file() -> None:
    assert told(
        '[delivery]\nwindow = 10\nconfirm_timeout = "1m"\n[spool]\nmax_bytes = "64MiB"\n[log]\nlevel = "warn"\n',
        '[delivery]\nwindow = 20\nmandatory = false\non_return = "drop"\n[lines]\nlisten = ["unix:l.sock"]\n',
    ) == [
        '[spool] max_bytes: "64MiB" -> "1GiB"',
        "[delivery] window: 10 -> 20",
        '[delivery] confirm_timeout: "60s" -> "30s"',
        "[delivery] mandatory: true -> false",
        '[delivery] on_return: "park" -> "drop"',
        '[lines] listen: not listening -> ["unix:l.sock"]',
        '[log] level: "warn" -> "info"',
    ]


def test_rows_come_and_go_by_their_names() -> None:
    text = '[[queue]]\nname = "{}"\n[[binding]]\nexchange = "e"\nqueue = "{}"\n[[policy]]\nexchange = "{}"\n'
    assert told(text.format("a", "a", "a"), text.format("b", "b", "b")) == [
        '[[policy]] number 1 exchange: "a" -> "b"',
        '[[queue]] "a" is gone',
        '[[queue]] "b" is new',
        '[[binding]] exchange = "e", queue = "a" is gone',
        '[[binding]] exchange = "e", queue = "b" is new',
    ]


def test_of_passwords_tokens_bodies_and_headers_only_that_they_changed() -> None:
    token, other = hash_of("pubd_one"), hash_of("pubd_other")
    text = (
        '[broker]\nurls = ["amqp://u:{0}@a"]\n[[principal]]\nname = "p"\ntokens = [{1}]\n'
        '[[schedule]]\nname = "s"\nevery = 1\nexchange = "e"\nbody = "{0}"\nheaders = {{ h = "{0}" }}\n'
    )
    found = told(text.format("one", f'"{token}"'), text.format("other", f'"{token}", "{other}"'))
    assert found == [
        "[broker] urls: changed, not shown",
        '[[schedule]] "s" body: changed, not shown',
        '[[schedule]] "s" headers: changed, not shown',
        '[[principal]] "p" tokens: 1 of them -> 2 of them',
    ]


def test_a_file_of_tokens_that_has_changed(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    text = '[access]\ntokens_file = "tokens"\n[[principal]]\nname = "p"\n'

    def read(token: str) -> Config:
        tokens.write_text(f"p:{hash_of(token)}\n")
        tokens.chmod(0o600)
        return Config.parse(text, {}, tmp_path / "pubd.toml")

    one, other = read("pubd_one"), read("pubd_other")
    assert [str(change) for change in changes(one, other)] == [
        '[[principal]] "p" tokens in tokens_file: changed, not shown'
    ]
    assert changes(one, read("pubd_one")) == ()


def test_a_secret_in_a_file_of_its_own_that_has_changed(tmp_path: Path) -> None:
    def read(password: str) -> Config:
        (tmp_path / "urls").write_text(f"amqp://u:{password}@a")
        return Config.parse('[broker]\nurls_file = "urls"\n', {}, tmp_path / "pubd.toml")

    assert [str(each) for each in changes(read("one"), read("other"))] == ["[broker] urls: changed, not shown"]


def test_what_takes_a_restart_is_a_problem_that_says_so() -> None:
    found = changes(Config.parse("", {}), Config.parse('[spool]\nurl = "memory:"\nretain = "2h"\n', {}))
    (problem,) = refusals(found, "pubd.toml")
    assert str(problem).startswith('pubd.toml: [spool] url: cannot change from "sqlite:///pubd.db" to "memory:" while')
    assert "restart pubd" in str(problem)
    assert refusals([Change(table="[delivery]", key="window", old="1", new="2")], "pubd.toml") == ()


def test_a_long_value_is_cut() -> None:
    urls = ", ".join(f'"unix:/{"x" * 90}{number}"' for number in range(9))
    (line,) = told("", f"[lines]\nlisten = [{urls}]\n")
    assert line.endswith("...")
    assert len(line) < 300
