"""The tables [http], [lines] and [directory]: what they give, and what is said of mistakes in them."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from pubd.config import Config, ConfigError
from pubd.intake.options import DirectoryOptions, HttpOptions, LinesOptions

TOKENS = '[[principal]]\nname = "shop"\ntokens = ["sha256:' + "0" * 64 + '"]\ngrants = [{ exchange = "*" }]\n'


def test_without_the_tables_there_are_no_such_ways_in() -> None:
    config = Config.parse("", {})
    assert (config.http, config.lines, config.directory) == (None, None, None)


def test_a_table_that_listens_nowhere_is_no_way_in() -> None:
    assert Config.parse('[http]\nmax_body = "1MiB"\n[lines]\n', {}).http is None


def test_the_defaults_are_those_of_the_options() -> None:
    config = Config.parse(
        '[http]\nlisten = ["unix:/run/h"]\n[lines]\nlisten = ["unix:/run/l"]\n[directory]\npath = "/in"\n', {}
    )
    assert config.http == HttpOptions(listen=("unix:/run/h",))
    assert config.lines == LinesOptions(listen=("unix:/run/l",))
    assert config.directory == DirectoryOptions(path=Path("/in"))


def test_every_option_can_be_configured() -> None:
    config = Config.parse(
        """
        [http]
        listen = ["tcp:8672:interface=127.0.0.1"]
        max_body = "1KiB"
        max_connections = 2
        max_unanswered = "3KiB"
        header_timeout = "4s"
        body_timeout = "5s"
        idle_timeout = "6s"
        max_wait = "7s"
        [lines]
        listen = ["unix:/run/l:mode=660"]
        max_line = "1KiB"
        max_connections = 2
        max_unanswered = "2KiB"
        max_unanswered_lines = 4
        idle_timeout = "5s"
        [directory]
        path = "/in"
        exchange = "e"
        routing_key = "k"
        properties = { content_type = "text/plain", priority = 3 }
        max_file = "1KiB"
        max_unanswered = "2KiB"
        rescan = "3s"
        principal = "shop"
        """
        + TOKENS,
        {},
    )
    for found, changed in (
        (config.http, HttpOptions(listen=())),
        (config.lines, LinesOptions(listen=())),
        (config.directory, DirectoryOptions(path=Path())),
    ):
        assert found is not None
        for field in attrs.fields(type(found)):
            assert getattr(found, field.name) != getattr(changed, field.name), field.name


def test_the_environment_can_say_where_to_listen() -> None:
    config = Config.parse("", {"PUBD_HTTP_LISTEN": "unix:/a unix:/b"})
    assert config.http is not None
    assert config.http.listen == ("unix:/a", "unix:/b")


def test_beyond_loopback_it_takes_tls_and_a_principal() -> None:
    listen = '[http]\nlisten = ["tls:443:interface=0.0.0.0:certificate=c:key=k"]\n'
    assert Config.parse(listen + TOKENS, {}).http is not None
    with pytest.raises(ConfigError, match="takes messages from anybody"):
        Config.parse(listen, {})


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[http]\nlisten = "unix:/x"', 2, "must be an array, even for one endpoint; write [ ] around the text"),
        ("[http]\nlisten = []", 2, "is empty; name an endpoint, or leave the key out"),
        ("[http]\nlisten = [8672]", 2, "listen[0]: must be text"),
        ('[http]\nlisten = ["8672"]', 2, "begins with no kind that pubd listens on"),
        ('[http]\nlisten = ["unix:/x", "unix:/x"]', 2, "listen[1]: 'unix:/x' is there twice; remove one"),
        ('[http]\nlisten = ["tcp:8672"]', 2, "add interface=127.0.0.1"),
        ('[http]\nlisten = ["unix:/x"]\nmax_body = "big"', 3, "max_body"),
        ('[http]\nlisten = ["unix:/x"]\nheader_timeout = 0', 3, "must be at least 0.1 s"),
        ('[http]\nlisten = ["unix:/x"]\nmax_line = 1', 3, "max_line: is not known here"),
        ('[lines]\nlisten = ["unix:/x"]\nmax_unanswered_lines = 0', 3, "max_unanswered_lines"),
        ('[lines]\nlisten = ["unix:/x"]\nmax_unanswered = "1MiB"', 3, "must be at least twice max_line"),
        ('[line]\nlisten = ["unix:/x"]', 1, "did you mean [lines]?"),
        ('[directory]\nexchange = "e"', 1, 'needs a path; write path = "/var/spool/pubd"'),
        ('[directory]\npath = ""', 2, "is no path"),
        ('[directory]\npath = "x"\nproperties = "x"', 3, "must be a table"),
        ('[directory]\npath = "x"\nproperties = { priority = 256 }', 3, "properties.priority: is out of range"),
        ('[directory]\npath = "x"\nproperties = { colour = "red" }', 3, "properties.colour"),
        ('[directory]\npath = "x"\nprincipal = "shop"', 3, "there is no [[principal]] of that name; write one"),
        (TOKENS + '[directory]\npath = "x"\nprincipal = "shoe"', 7, "of that name; there are shop"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_fix(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.parse(text, {})
    assert f"pubd.toml:{line}: " in str(caught.value)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1
