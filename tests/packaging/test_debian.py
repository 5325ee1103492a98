"""The Debian package: what it is made of, and its man page. Building it is `packaging/build-deb`, a minute and a half.

How it fails: a dependency that the constraints do not hold, so that the package is another one tomorrow; a version that
is not pubd's; a man page that groff warns of, or that lacks a command; a file that the package names and nobody has.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pubd._version import __version__
from pubd.cli import main

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging" / "debian"


def constraints() -> dict[str, str]:
    lines = (ROOT / "packaging" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def needed() -> set[str]:
    """Everything that is installed with pubd[otel]: what setup.cfg names, and what that needs, and so on."""
    reading = False
    waiting: list[Requirement] = []
    for line in (ROOT / "setup.cfg").read_text().splitlines():
        if line.strip() in ("install_requires =", "otel ="):
            reading = True
        elif reading and line.strip() and not line.startswith(" "):
            reading = False
        elif reading and line.strip() and not line.strip().startswith("#"):
            waiting.append(Requirement(line.strip()))
    found: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        each = waiting.pop()
        key = canonicalize_name(each.name), frozenset(each.extras)
        if key in found:
            continue
        found.add(key)
        try:
            requires = distribution(each.name).requires or []
        except PackageNotFoundError:
            continue
        for text in requires:
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in (*each.extras, "")):
                waiting.append(inner)
    return {name for name, _ in found}


def test_every_dependency_is_held_at_one_version() -> None:
    assert needed() - set(constraints()) == set()


def test_the_versions_are_pubds() -> None:
    (version,) = re.findall(r"^pubd \(([^)]*)\)", (DEBIAN / "changelog").read_text().splitlines()[0])
    assert version == __version__


def test_what_the_package_installs_is_there() -> None:
    for line in (DEBIAN / "pubd.install").read_text().splitlines():
        source, _ = line.split()
        source = source.replace("debian/", "packaging/debian/")
        assert (ROOT / source).is_file(), source
    for name in (DEBIAN / "pubd.docs").read_text().split():
        assert (ROOT / name).is_file()
    assert os.access(DEBIAN / "rules", os.X_OK)
    assert os.access(ROOT / "packaging" / "build-deb", os.X_OK)


def test_debian_reads_its_changelog() -> None:
    done = subprocess.run(
        ["dpkg-parsechangelog", "-l", DEBIAN / "changelog", "-S", "Version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (__version__, "")


@pytest.fixture(scope="module")
def page() -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "packaging" / "man.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_the_man_page_has_every_command_and_option(page: str) -> None:
    context = click.Context(main, info_name="pubd")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert f"\n.SS {name}" in page
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) and not parameter.hidden else ():
                assert option.replace("-", "\\-") in page, f"{name} {option}"


def test_groff_does_not_warn_of_it(page: str, tmp_path: Path) -> None:
    (tmp_path / "pubd.1").write_text(page)
    # As Debian's lintian does.
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", tmp_path / "pubd.1"],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
