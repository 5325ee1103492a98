"""The options with which a command finds the daemon, and shows who it is."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pubd.cli.client import Client
from pubd.cli.failure import CONFIGURATION, USAGE, Failure
from pubd.cli.server import InvalidServer, Server

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    click.option(
        "-s",
        "--server",
        envvar="PUBD_SERVER",
        show_envvar=True,
        metavar="URL",
        help="unix:PATH, http://HOST:PORT or https://HOST:PORT. "
        "[default: unix:/run/pubd/http.sock, else http://127.0.0.1:8672]",
    ),
    click.option(
        "--token",
        envvar="PUBD_TOKEN",
        show_envvar=True,
        metavar="TOKEN",
        help="Bearer token. On a command line every user of the host can read it: better give it by the environment.",
    ),
    click.option(
        "--token-file",
        envvar="PUBD_TOKEN_FILE",
        show_envvar=True,
        type=_FILE,
        help="The same from a file that only you can read.",
    ),
    click.option("--cacert", envvar="PUBD_CACERT", show_envvar=True, type=_FILE, help="PEM file of the server's CA."),
    click.option("--cert", type=_FILE, help="PEM file of your certificate, with --key or with the key in it."),
    click.option("--key", type=_FILE, help="PEM file of the key of --cert."),
)


def server_options(command: _Command) -> _Command:
    """Adds ``--server``, ``--token``, ``--token-file``, ``--cacert``, ``--cert`` and ``--key``; see ``connect``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def connect(
    *,
    server: str | None,
    token: str | None,
    token_file: Path | None,
    cacert: Path | None,
    cert: Path | None,
    key: Path | None,
) -> Client:
    """The client for these options; nothing is connected yet. Raises Failure."""
    shown = _token(token, token_file)
    try:
        found = Server.parse(server) if server else Server.default(with_token=shown is not None)
    except InvalidServer as error:
        raise Failure(f"--server {error}", USAGE) from None
    if shown is not None and not found.is_private:
        raise Failure(f"the token would go to {found} in the clear, for all to read: use https://", USAGE)
    if key is not None and cert is None:
        raise Failure("--key needs --cert", USAGE)
    return Client(found, clock=time.monotonic, token=shown, tls=lambda: _tls(cacert, cert, key))


def _token(token: str | None, file: Path | None) -> str | None:
    """The token itself; the file counts more than the environment, since somebody wrote its name down."""
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Failure(f"--token-file {file} cannot be read: {why}", CONFIGURATION) from None
        if not token:
            raise Failure(f"--token-file {file} is empty", CONFIGURATION)
    if not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Failure("the token has characters in it that no token has; make one with 'pubd token new'", USAGE)
    return token


def _tls(cacert: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=cacert)
    except (OSError, ValueError) as error:
        raise Failure(f"--cacert {cacert} cannot be used: {_reason(error)}", CONFIGURATION) from None
    if cert is not None:
        try:
            # Without a password callback OpenSSL would ask on the terminal.
            context.load_cert_chain(cert, key, password=lambda: "")
        except (OSError, ValueError) as error:
            names = cert if key is None else f"{cert} with --key {key}"
            raise Failure(f"--cert {names} cannot be used: {_reason(error)}", CONFIGURATION) from None
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no PEM file of that kind").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or "it is no PEM file"
