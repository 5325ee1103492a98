"""Builds the Debian package, and does with it what its users do: install, run, publish, upgrade, remove, purge.

``.venv/bin/python script/check_deb.py [--here] [DEB]``, as root on a Debian. Without ``--here`` the package is
installed into an overlay over this machine's root, in a mount namespace of its own, and nothing of it stays. DEB: one
that is built already. Needs build-essential, debhelper, lintian, python3-venv, and RabbitMQ for a private node.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.rabbitmq import Node  # noqa: E402  (the repository has to be found first)

#: Stands in for the user that systemd makes for the service (DynamicUser=), which no file names.
USER = 61999
CREDENTIALS = Path("/run/credentials/pubd.service")
STATE = Path("/var/lib/private/pubd")
#: Where the package may leave something, or others do meanwhile.
NOT_OURS = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/cache",
    "/var/log",
    "/var/lib/dpkg",
    "/var/lib/apt",
)


def say(text: str) -> None:
    print(f"check_deb: {text}", flush=True)


def run(*command: str | Path, **environment: str) -> str:
    """Its output; ends this program with that if it fails."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", **environment},
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def check(holds: object, what: str) -> None:
    if not holds:
        sys.exit(f"check_deb: it is not so that {what}")
    say(f"ok: {what}")


def files() -> set[str]:
    """Everything on this machine's root that the package could leave behind."""
    found: set[str] = set()
    for directory in ("/etc", "/usr", "/lib", "/var", "/opt", "/srv", "/home"):
        top = os.path.realpath(directory)
        for where, below, names in os.walk(top):
            below[:] = [name for name in below if f"{where}/{name}" not in NOT_OURS]
            if where.startswith(str(ROOT)):
                below.clear()
                continue
            found.update(f"{where}/{name}" for name in (*below, *names))
    return {path for path in found if "/__pycache__" not in path}


def built() -> Path:
    since = time.monotonic()
    run(ROOT / "packaging" / "build-deb")
    (deb,) = (ROOT / "var" / "debian").glob("pubd_*.deb")
    say(f"built {deb.name}, {deb.stat().st_size / 1e6:.1f} MB, in {time.monotonic() - since:.0f} s")
    return deb


class Service:
    """pubd as its units start it, where systemd does not run: its sockets, its user, its credentials, its command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = 0
        """Permissions of the directory of private states."""

    def start(self) -> None:
        """From here on the sockets listen; the first who connects starts pubd."""
        unit = Path("/lib/systemd/system/pubd.service").read_text()
        (command,) = (line.split("=", 1)[1].split() for line in unit.splitlines() if line.startswith("ExecStart="))
        shutil.rmtree(CREDENTIALS, ignore_errors=True)
        CREDENTIALS.mkdir(parents=True)
        for secret in Path("/etc/pubd/credentials").iterdir():
            copied = CREDENTIALS / f"pubd_{secret.name}"
            shutil.copy(secret, copied)
            copied.chmod(0o400)
            os.chown(copied, USER, USER)
        os.chown(CREDENTIALS, USER, USER)
        STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(STATE, USER, USER)
        state = Path("/var/lib/pubd")
        if not state.is_symlink():
            state.symlink_to("private/pubd")
        # systemd mounts it for the service; here the user has to come through.
        self._closed = self._closed or STATE.parent.stat().st_mode & 0o777
        STATE.parent.chmod(0o711)
        Path("/run/pubd").mkdir(exist_ok=True)
        sockets = ("/run/pubd/http.sock", "/run/pubd/lines.sock")
        for path in sockets:
            Path(path).unlink(missing_ok=True)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (read when the process has ended)
        self._process = subprocess.Popen(
            [
                "systemd-socket-activate",
                *(f"--listen={path}" for path in sockets),
                "--fdname=http:lines",
                "setpriv",
                f"--reuid={USER}",
                f"--regid={USER}",
                "--clear-groups",
                "--no-new-privs",
                *command,
            ],
            cwd=STATE,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not all(Path(path).is_socket() for path in sockets) and time.monotonic() < deadline:
            time.sleep(0.1)

    def end(self) -> None:
        """Whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        if self._closed:
            STATE.parent.chmod(self._closed)

    def stop(self) -> str:
        """What it said."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(60)
        self._output.seek(0)
        said = self._output.read().decode(errors="replace")
        if code != 0:
            print(said)
        check(code == 0, f"pubd ends with 0 after SIGTERM (it ended with {code})")
        return said


def published(url: str, queue: str) -> None:
    """One message through the packaged socket, confirmed, and there."""
    import pika

    with_queue = pika.BlockingConnection(pika.URLParameters(url))
    with_queue.channel().queue_declare(queue)
    # Anything but "confirmed" is another exit code.
    told = run("pubd", "send", "-e", "", "-r", queue, "-b", "hello", "--wait")
    say(f"ok: pubd send --wait is told that it is confirmed: {told.strip()}")
    _, _, body = with_queue.channel().basic_get(queue, auto_ack=True)
    check(body == b"hello", "the message is in the queue")
    with_queue.close()


def inside(deb: Path, url: str) -> None:
    """On the machine that the package is for."""
    service = Service()
    try:
        checked(deb, url, service)
    finally:
        service.end()


def checked(deb: Path, url: str, service: Service) -> None:
    """Everything that an administrator does with it."""
    had_group = "pubd-clients:" in Path("/etc/group").read_text()
    before = files()
    say(f"installing {deb.name}")
    since = time.monotonic()
    run("apt-get", "install", "-y", "--no-install-recommends", deb)
    say(f"installed in {time.monotonic() - since:.0f} s")
    check("pubd-clients:" in Path("/etc/group").read_text(), "the group pubd-clients is made")
    check(run("pubd", "--version").strip(), "the command runs")
    credentials = Path("/etc/pubd/credentials")
    check(credentials.stat().st_mode & 0o777 == 0o700, "the credentials are root's alone")
    check((credentials / "broker-urls").stat().st_mode & 0o777 == 0o600, "and so is each of them")
    # As an administrator does.
    (credentials / "broker-urls").write_text(url + "\n")
    given = {"PUBD_BROKER_URLS_FILE": str(credentials / "broker-urls")}
    run("pubd", "check", "/etc/pubd/pubd.toml", **given)
    say("ok: the packaged configuration is right")
    check(
        "pubd(1)" in run("man", "--locale=C", "pubd", MANPAGER="cat").replace("PUBD", "pubd"), "the man page is there"
    )

    service.start()
    published(url, "check-deb")
    owners = {Path(f"/var/lib/pubd/{name}").stat().st_uid for name in os.listdir("/var/lib/pubd")}
    check(owners == {USER}, "the spool is that of the service's user, and private")
    status = json.loads(run("pubd", "status", "--json"))
    check(status, "pubd status answers over the packaged socket")
    said = service.stop()
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    check(not [each for each in lines if each["level"] in ("error", "critical")], "nothing went wrong in the log")
    check("Traceback" not in said and "guest:guest" not in said, "no traceback and no password is in it")

    say("installing it again, as an upgrade does")
    run("apt-get", "install", "-y", "--reinstall", "--no-install-recommends", deb)
    check((credentials / "broker-urls").read_text() == url + "\n", "the administrator's file was kept")
    service.start()
    published(url, "check-deb-again")
    service.stop()

    say("removing and purging")
    run("apt-get", "remove", "-y", "pubd")
    check((credentials / "broker-urls").exists(), "apt remove keeps the configuration")
    told = run("apt-get", "purge", "-y", "pubd")
    check("the spool with its messages, was left" in told, "apt purge says that it leaves the spool")
    # What systemd made for the service, which is no part of the package.
    shutil.rmtree(STATE)
    Path("/var/lib/pubd").unlink()
    shutil.rmtree(CREDENTIALS)
    shutil.rmtree("/run/pubd")
    if not had_group:
        # Debian's policy: groups stay, since files may be theirs. Nobody is in this one.
        run("groupdel", "pubd-clients")
    left = sorted(path for path in files() - before if not path.endswith(("-", ".dpkg-old")))
    check(not left, f"nothing is left behind ({', '.join(left[:20])})")


def in_overlay(deb: Path, url: str) -> None:
    """The same in a root of its own: this machine's, with whatever is written kept apart, and thrown away."""
    # On the disk of the repository: an overlay cannot be over itself, and /tmp may be small.
    with tempfile.TemporaryDirectory(prefix="pubd-check-deb-") as directory:
        for name in ("upper", "work", "root"):
            (Path(directory) / name).mkdir()
        script = f"""
            set -e
            mount -t overlay overlay -o lowerdir=/,upperdir={directory}/upper,workdir={directory}/work {directory}/root
            cd {directory}/root
            for name in proc sys dev; do mount --rbind /$name $name; done
            mount -t tmpfs tmpfs run
            printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
            chmod 755 usr/sbin/policy-rc.d
            exec chroot . "$@"
        """
        command = [sys.executable, str(Path(__file__).resolve()), "--inside", url, str(deb.resolve())]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command],
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(done.returncode)


def main() -> None:
    """The command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="script/check_deb.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--here", action="store_true", help="install it on this machine, not into an overlay")
    parser.add_argument("--inside", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("deb", nargs="?", type=Path)
    options = parser.parse_args()
    if options.inside:
        inside(options.deb, options.inside)
        return
    if os.geteuid() != 0:
        sys.exit("check_deb: only root can install packages; run it as root")
    if options.here and shutil.which("pubd", path="/usr/bin"):
        sys.exit("check_deb: pubd is installed on this machine, and would be purged; leave out --here")
    deb = options.deb.resolve() if options.deb else built()
    told = run("lintian", "--allow-root", "--fail-on=error,warning", deb)
    say(f"lintian: {told.strip() or 'nothing to say'}")
    with Node() as node:
        if options.here:
            inside(deb, node.url)
        else:
            in_overlay(deb, node.url)
    say("passed")


if __name__ == "__main__":
    main()
