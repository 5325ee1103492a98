"""``pubd token``: bearer tokens for the clients of a daemon. Made here, known to the daemon by their hashes only."""

from __future__ import annotations

import json
import os
import sys

import click

from pubd.access import LOCAL
from pubd.access.principal import NAME, NAME_RULE
from pubd.access.tokens import hash_of, new_token
from pubd.cli.failure import Failure


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter(NAME_RULE)
    if value == LOCAL.name:
        raise click.BadParameter("is the name of whoever shows nothing; give another name")
    return value


@click.group()
def token() -> None:
    """Make tokens for those who hand in messages."""


@token.command()
@click.argument("name", callback=_name)
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object on stdout.")
def new(name: str, as_json: bool) -> None:
    """Make a token for the principal NAME.

    The token goes to stdout, once: nobody can find it out again. What the daemon has to know goes to stderr. With
    --json it is one object with name, token, hash, toml (the [[principal]] table) and line (of [access] tokens_file).
    """
    made = new_token()
    hashed = hash_of(made)
    line = f"{name}:{hashed}"
    # A name has no character that TOML would write in another way.
    toml = f'[[principal]]\nname = "{name}"\ntokens = ["{hashed}"]\n'
    toml += 'grants = [{ exchange = "*", routing_key = "#" }]   # everything: say here what it needs\n'
    if as_json:
        _print(json.dumps({"name": name, "token": made, "hash": hashed, "toml": toml, "line": line}))
        return
    _print(made)
    click.echo(
        f"\nThe token is for {name}, and not shown again. Add its hash to pubd.toml, and say 'pubd reload':\n\n{toml}\n"
        "If there is such a [[principal]] already, add the hash to its tokens, or this line to the file that\n"
        f"[access] tokens_file names:\n\n{line}",
        err=True,
    )


def _print(text: str) -> None:
    try:
        click.echo(text)
    except OSError as error:
        # Python would try once more at its end, to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Failure(f"the token cannot be written ({error.strerror}); nobody has it, make another one") from None
