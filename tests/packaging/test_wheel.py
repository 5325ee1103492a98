"""What ``pip install`` makes of the repository: Twisted finds the plugin, and nothing but pubd is installed.

How it fails: an ``__init__.py`` under ``twisted/`` would overwrite Twisted's own, a package that discovery misses is
absent from the wheel only, and setuptools' default editable install hides ``twisted/plugins`` from Twisted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
OFFLINE = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
TWIST = "import sys; sys.argv[0] = 'twist'; from twisted.application.twist._twist import Twist; Twist.main()"
PLUGIN = "import twisted.plugins.pubd_plugin as plugin; print(plugin.__file__)"


def output(*command: str | Path, cwd: Path) -> str:
    """Standard output of ``command``, run in ``cwd`` with nothing in the environment that steers Python or git."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "GIT_"))}
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def neighbours(target: Path) -> Path:
    """A directory that holds what this environment's site-packages hold, except pubd in whatever way installed."""
    target.mkdir()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            if "pubd" not in entry.name.lower() and entry.suffix not in {".pth", ".egg-link"}:
                (target / entry.name).symlink_to(entry)
    return target


def environment(directory: Path) -> Path:
    """The Python of a new environment, clean of pubd.

    Installing Twisted, pika and the rest anew would take minutes and a network; what is to be shown is how *pubd* is
    installed, so they are lent by the running environment through a path file, and the install of pubd itself is real.
    """
    output(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory.parent)
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "neighbours.pth").write_text(f"{neighbours(directory / 'neighbours')}\n")
    return directory / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    output(sys.executable, *PIP, "--python", python, "install", *OFFLINE, *what, cwd=python.parents[1])


def assert_twisted_lists_pubd(python: Path, plugin_below: Path) -> None:
    elsewhere = python.parents[1]
    assert Path(output(python, "-c", PLUGIN, cwd=elsewhere).strip()).is_relative_to(plugin_below)
    for program in TWISTD, TWIST:
        commands = [
            line.split()[0]
            for line in output(python, "-c", program, "--help", cwd=elsewhere).splitlines()
            if line.strip()
        ]
        assert "pubd" in commands


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is or could be committed, since building writes into the tree."""
    copy = tmp_path_factory.mktemp("source") / "pubd"
    listed = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        # A file that was removed but not yet committed is still listed.
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    output(sys.executable, *PIP, "wheel", *OFFLINE, "--wheel-dir", directory, source, cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_holds_pubd_and_its_plugin_and_nothing_else(source: Path, wheel: Path) -> None:
    expected = {
        str(path.relative_to(source))
        for path in [*source.glob("pubd/**/*"), *source.glob("twisted/plugins/*.py")]
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert {"pubd/intake/http/page/static/uplot.LICENSE", "pubd/intake/http/page/templates/base.html"} <= names
    assert {"pubd/py.typed", "twisted/plugins/pubd_plugin.py"} <= names
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & names


def test_twisted_finds_pubd_after_an_install_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    install(python, wheel)
    assert_twisted_lists_pubd(python, plugin_below=tmp_path / "venv")


def test_twisted_finds_pubd_after_an_editable_install_in_compat_mode(source: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    install(python, "--config-settings", "editable_mode=compat", "--editable", source)
    assert_twisted_lists_pubd(python, plugin_below=source)
