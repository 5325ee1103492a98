"""The units that ship: systemd takes them without a word, they are hardened, and they fit the configuration that ships.

How it fails: a unit that systemd-analyze finds fault with; a hardening that somebody loosened; a socket's name that the
configuration does not have; sockets in a directory that goes with each stop of the service; a group with the name of
the dynamic user, which systemd refuses; an exit status that is restarted for ever.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

from pubd.config import Config
from pubd.intake.endpoint import Endpoint

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = PACKAGING / "systemd"
SERVICE = "pubd.service"
SOCKETS = ("pubd-http.socket", "pubd-http-tcp.socket", "pubd-lines.socket")
URL = "amqp://guest:guest@localhost:5672/%2F"

#: Of Debian's package systemd, which need not be running.
ANALYZE = shutil.which("systemd-analyze")


class Unit(RawConfigParser):
    """A unit file; of a key that is there several times the last one, but see :meth:`all`."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.text = (UNITS / name).read_text()
        self.read_string(self.text)

    def all(self, key: str) -> list[str]:
        return re.findall(rf"^{key}=(.*)$", self.text, re.MULTILINE)


def analyze(*arguments: str | Path) -> str:
    assert ANALYZE is not None
    done = subprocess.run(
        [ANALYZE, *arguments],
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_EMOJI": "0", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_verify_is_clean(tmp_path: Path) -> None:
    # A root of its own: what ExecStart= names has to be there, and this machine has other units.
    units = tmp_path / "usr/lib/systemd/system"
    shutil.copytree("/lib/systemd/system", units, symlinks=True)
    for name in (SERVICE, *SOCKETS):
        shutil.copy(UNITS / name, units)
    for name in ("usr/lib/pubd/bin/twistd", "bin/sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "lib").symlink_to("usr/lib")
    assert analyze("verify", "--man=no", f"--root={tmp_path}", SERVICE, *SOCKETS) == ""


def test_the_exposure_is_low() -> None:
    told = analyze("security", "--offline=yes", "--no-pager", UNITS / SERVICE)
    (level,) = re.findall(r"Overall exposure level for pubd\.service: ([0-9.]+)", told)
    assert float(level) <= 1.5, told


def test_who_pubd_is_and_how_it_tells() -> None:
    service = Unit(SERVICE)["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert (service["DynamicUser"], service["StateDirectory"], service["ConfigurationDirectory"]) == (
        "yes",
        "pubd",
        "pubd",
    )
    assert service["LoadCredential"] == "pubd:/etc/pubd/credentials"
    assert int(service["WatchdogSec"]) >= 30
    # The signs of who is at the other end of a unix socket would all be those of nobody.
    assert "PrivateUsers" not in service
    # Its configuration is wrong: os.EX_CONFIG.
    assert service["RestartPreventExitStatus"] == str(os.EX_CONFIG)
    assert f"!= {os.EX_CONFIG} ]" in service["ExecStopPost"]


def test_the_sockets_outlive_the_service_and_are_a_groups() -> None:
    service = Unit(SERVICE)
    # debhelper would restart them with each upgrade.
    assert "Also" not in service["Install"]
    # Systemd empties and removes it at each stop, and with it the files of sockets that still listen.
    assert "RuntimeDirectory" not in service["Service"]
    (group,) = re.findall(r"^g (\S+) -$", (UNITS / "pubd.sysusers").read_text(), re.MULTILINE)
    assert group != SERVICE.removesuffix(".service")
    for name in SOCKETS:
        unit = Unit(name)
        socket = unit["Socket"]
        assert socket["Service"] == SERVICE
        # Twisted knows one socket by each name.
        assert len(unit.all("ListenStream")) == 1
        assert "RemoveOnStop" not in socket
        if socket["ListenStream"].startswith("/"):
            assert (socket["SocketGroup"], socket["SocketMode"]) == (group, "0660")
            assert name in service["Unit"]["Wants"].split()
            assert name in service["Unit"]["After"] + service.all("After")[0]
        else:
            assert socket["ListenStream"].startswith("127.0.0.1:")
            assert name not in service.text


def test_the_configuration_that_ships_is_right_and_names_the_sockets(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text(URL)
    # Systemd's credentials are there only while the service runs; a variable goes before them.
    config = Config.load(PACKAGING / "pubd.toml", {"PUBD_BROKER_URLS_FILE": str(tmp_path / "urls")})
    assert config.hints == ()
    assert config.http is not None
    assert config.lines is not None
    given = [Endpoint.parse(text) for text in (*config.http.listen, *config.lines.listen)]
    assert {each.name for each in given} == {Unit(name)["Socket"]["FileDescriptorName"] for name in SOCKETS[::2]}
    assert config.spool.path is not None
    assert config.spool.path.parent == Path("/var/lib", Unit(SERVICE)["Service"]["StateDirectory"])


def test_what_is_commented_out_in_it_is_right_too(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text(URL)
    (tmp_path / "tokens").write_text("# none yet\n")
    (tmp_path / "tokens").chmod(0o600)
    text = (PACKAGING / "pubd.toml").read_text()
    # Every line that is a key or a heading behind its "#"; keys that are there twice have one value uncommented before.
    lines: list[str] = []
    for line in text.splitlines():
        shown = re.match(r"#(\[|\w+ = )", line)
        lines.append(line[1:] if shown and not line.startswith("#listen") else line)
    text = "\n".join(lines).replace('users = ["www-data"]', "users = [33]")
    text = text.replace("/run/credentials/pubd.service/pubd_tokens", str(tmp_path / "tokens"))
    config = Config.parse(text, {"PUBD_BROKER_URLS_FILE": str(tmp_path / "urls")}, tmp_path / "pubd.toml")
    assert [principal.name for principal in config.access.principals] == ["shop"]
    assert [exchange.name for exchange in config.topology.exchanges] == ["orders"]
    assert config.tracing is not None
    (listen,) = [line[1:] for line in lines if line.startswith("#listen")]
    other = Config.parse(
        f"[http]\n{listen}\n", {"PUBD_BROKER_URLS_FILE": str(tmp_path / "urls")}, tmp_path / "pubd.toml"
    )
    assert other.http is not None
    names = [Endpoint.parse(each).name for each in other.http.listen]
    assert names == [Unit(name)["Socket"]["FileDescriptorName"] for name in SOCKETS[:2]]


def test_the_secrets_that_ship_are_no_ones() -> None:
    assert (PACKAGING / "debian" / "broker-urls").read_text().strip() == URL
    assert "@" not in re.sub(r"#.*", "", (PACKAGING / "pubd.toml").read_text())
