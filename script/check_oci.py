"""Executes the Containerfile without a container engine, in a directory tree of Debian's, and runs what comes out.

``.venv/bin/python script/check_oci.py``, as root on a Debian. Each stage is an overlay over a fresh minimal system that
debootstrap makes (kept in var/oci for the next time); RUN is chroot, COPY is cp, and at the end ENTRYPOINT and CMD are
started as USER, a message is handed in over the container's socket, and HEALTHCHECK is asked. debootstrap, where it is
missing, is installed into an overlay over this machine's root, of which nothing stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.rabbitmq import Node  # noqa: E402  (the repository has to be found first)

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = ROOT / "packaging" / "oci" / "Containerfile"
KEPT = ROOT / "var" / "oci"
MIRROR = "http://deb.debian.org/debian"
#: Whom this machine's pip trusts, where that is not the usual: a network with a proxy that signs for others.
AUTHORITIES = os.environ.get("PIP_CERT")
#: What says something about the image, and does nothing to it.
SAID = {"VOLUME", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD", "USER"}


def say(text: str) -> None:
    print(f"check_oci: {text}", flush=True)


def check(holds: object, what: str) -> None:
    if not holds:
        sys.exit(f"check_oci: it is not so that {what}")
    say(f"ok: {what}")


def run(*command: str | Path) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE)
    pairs = [line.partition(" ") for line in text.replace("\\\n", " ").splitlines() if line]
    return [(word, rest.strip()) for word, _, rest in pairs]


def base(image: str, directory: Path) -> Path:
    """The minimal system that ``image`` (docker.io/library/debian:SUITE-slim) names."""
    found = re.fullmatch(r"docker\.io/library/debian:(\w+)-slim", image)
    assert found is not None, f"{image} is no image that this program can make"
    made = KEPT / found[1]
    if made.is_dir():
        return made
    say(f"making Debian {found[1]} with debootstrap")
    making = KEPT / f"{found[1]}.making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    command = ["debootstrap", "--variant=minbase", found[1], str(making), MIRROR]
    if shutil.which("debootstrap", path="/usr/sbin:/usr/bin"):
        run(*command)
    else:
        with overlay(Path("/"), directory / "debootstrap") as root:
            run("mount", "--rbind", KEPT, f"{root}{KEPT}")
            chroot(root, "apt-get -q update && apt-get -q install -y --no-install-recommends debootstrap")
            chroot(root, shlex.join(command))
    making.rename(made)
    return made


@contextlib.contextmanager
def overlay(lower: Path, directory: Path) -> Iterator[Path]:
    """A root over ``lower``; what is written to it is in ``directory``. Only in a mount namespace of one's own."""
    for name in ("upper", "work", "root"):
        (directory / name).mkdir(parents=True)
    root = directory / "root"
    layers = f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work"
    run("mount", "-t", "overlay", "overlay", "-o", layers, root)
    for name in ("proc", "sys", "dev"):
        run("mount", "--rbind", f"/{name}", root / name)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    if AUTHORITIES is not None:
        (root / "tmp/authorities.crt").write_bytes(Path(AUTHORITIES).read_bytes())
    try:
        yield root
    finally:
        run("umount", "--recursive", "--lazy", root)


def chroot(root: Path, command: str, where: str = "/", environment: tuple[str, ...] = ()) -> str:
    """What RUN does, or what is executed in the container."""
    if AUTHORITIES is not None:
        environment = (*environment, "PIP_CERT=/tmp/authorities.crt")
    return run(
        *("chroot", root, "/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        *("DEBIAN_FRONTEND=noninteractive", *environment, "/bin/sh", "-c", f"cd {where} && {command}"),
    )


def copied(rest: str, root: Path, stages: dict[str, Path], where: str) -> None:
    """COPY: from another stage, or of what is or could be committed."""
    parts = rest.split()
    stage = stages[parts.pop(0).removeprefix("--from=")] if parts[0].startswith("--from=") else None
    source, target = parts
    to = root / (where if target == "." else target).lstrip("/")
    if stage is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-a", stage / source.lstrip("/"), to)
    elif source == ".":
        names = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, to / name)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, to)


class Image:
    """What the last stage says of itself."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.where = "/"

    @property
    def command(self) -> list[str]:
        return [*json.loads(self.said["ENTRYPOINT"]), *json.loads(self.said["CMD"])]


def started(root: Path, image: Image, node: Node) -> None:
    """The container runs: it is handed a message, looked at, and stopped."""
    user, group = image.said["USER"].split(":")
    as_user = ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs")
    output = root.parent / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [
                *("chroot", root, "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", f"PUBD_BROKER_URLS={node.url}"),
                *("/bin/sh", "-c", 'cd "$0" && exec "$@"', image.where, *as_user, *image.command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        socket = root / "run/pubd/http.sock"
        deadline = time.monotonic() + 60
        while not socket.is_socket():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"check_oci: it does not listen:\n{output.read_text()}")
            time.sleep(0.1)
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(node.url))
        connection.channel().queue_declare("check-oci")
        # Anything but "confirmed" is another exit code.
        told = chroot(root, "pubd send -e '' -r check-oci -b hello --wait")
        say(f"ok: a message over its socket is confirmed: {told.strip()}")
        _, _, body = connection.channel().basic_get("check-oci", auto_ack=True)
        check(body == b"hello", "the message is in the queue")
        connection.close()
        healthy = image.said["HEALTHCHECK"].partition("CMD ")[2]
        chroot(root, shlex.join([*as_user, "/bin/sh", "-c", healthy]))
        say("ok: HEALTHCHECK says that it is healthy")
        check((root / "var/lib/pubd/pubd.db").stat().st_uid == int(user), "the spool is the user's")
    finally:
        process.send_signal(getattr(signal, image.said["STOPSIGNAL"]))
        code = process.wait(60)
    if code != 0:
        print(output.read_text())
    check(code == 0, f"{image.said['STOPSIGNAL']} ends it with 0 (it ended with {code})")
    check("Traceback" not in output.read_text(), "no traceback is in its log")


def executed(directory: Path) -> None:
    """Every instruction, in their order."""
    image = Image()
    stages: dict[str, Path] = {}
    with contextlib.ExitStack() as stack:
        root = Path()
        for word, rest in instructions():
            since = time.monotonic()
            if word == "FROM":
                name, _, alias = rest.partition(" AS ")
                root = stack.enter_context(overlay(base(name, directory), directory / f"stage-{len(stages)}"))
                stages[alias or "last"] = root
                image = Image()
            elif word == "RUN":
                chroot(root, rest, image.where)
            elif word == "COPY":
                copied(rest, root, stages, image.where)
            elif word == "WORKDIR":
                image.where = rest
                (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            else:
                assert word in SAID, f"{word} is no instruction that this program knows"
                image.said[word] = rest
            say(f"{word} {rest[:90]} ({time.monotonic() - since:.0f} s)")
        with Node() as node:
            started(root, image, node)


def main() -> None:
    """The command."""
    if os.geteuid() != 0:
        sys.exit("check_oci: this takes root, for chroot and overlays")
    if sys.argv[1:] != ["--inside"]:
        # Mounts of its own, gone with this process.
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, "--inside"])
    with tempfile.TemporaryDirectory(prefix="pubd-check-oci-", ignore_cleanup_errors=True) as directory:
        executed(Path(directory))
    say("passed")


if __name__ == "__main__":
    main()
