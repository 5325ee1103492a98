"""The Containerfile, as far as that can be judged without an engine: its instructions, and the files that they name."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pubd.config import Config

ROOT = Path(__file__).parents[2]
OCI = ROOT / "packaging" / "oci"
KNOWN = {
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "FROM",
    "HEALTHCHECK",
    "RUN",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
}


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (OCI / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_its_instructions_are_known_and_the_last_stage_is_not_roots() -> None:
    words = [word for word, _ in instructions()]
    assert set(words) <= KNOWN
    assert words.count("FROM") == 2
    last = instructions()[max(n for n, word in enumerate(words) if word == "FROM") :]
    (user,) = [rest for word, rest in last if word == "USER"]
    assert user.split(":")[0] not in ("0", "root")


def test_what_it_copies_is_there() -> None:
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            source = rest.split()[0]
            assert (ROOT / source).exists(), source


def test_its_commands_are_arrays_so_that_signals_reach_pubd() -> None:
    for word, rest in instructions():
        if word in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(each, str) for each in json.loads(rest))


def test_its_configuration_is_right() -> None:
    config = Config.load(OCI / "pubd.toml", {"PUBD_BROKER_URLS": "amqp://rabbit"})
    assert config.hints == ()
    volumes = next(rest for word, rest in instructions() if word == "VOLUME").split()
    assert config.spool.path is not None
    assert str(config.spool.path.parent) in volumes
    assert config.http is not None
    assert config.http.listen[0].startswith(f"unix:{volumes[1]}/")
