"""Building [access] and [[principal]]: who is who, and what is in the file of tokens."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from pubd.access import LOCAL, Principal
from pubd.access.tokens import PREFIX, digest_in
from pubd.config.problems import Problem, Unfit, hint, shown
from pubd.config.values import AccessConfig
from pubd.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pubd.config.read import Reading, Row

# Some 13,000 tokens; what is longer was not meant.
_LONGEST_FILE = 1 << 20
# The kernel's overflowuid and overflowgid (user_namespaces(7)); by name nobody and nogroup.
_OVERFLOW = 65534


def access(reading: Reading, table: Row, rows: Sequence[Row]) -> AccessConfig:
    """[access] with the [[principal]] rows; a mistake is a problem, and leaves out what it is about."""
    rows_by_name = {row.values["name"]: row for row in reversed(rows) if "name" in row.values}
    more: dict[str, list[str]] = {name: [] for name in rows_by_name}
    if table.values.get("tokens_file") is not None:
        for name, token in _read_tokens(reading, table, more):
            more[name].append(token)
    tokens = {id(row): (*row.values.get("tokens", ()), *more.get(row.values.get("name", ""), ())) for row in rows}
    _check_apart(reading, rows, tokens)
    anonymous = _anonymous(reading, table, rows_by_name)
    for row in rows:
        _suspect(reading, row, tokens[id(row)], row.values.get("name") == anonymous)
    principals = {
        row.values["name"]: Principal(**{**row.values, "tokens": tokens[id(row)]}) for row in rows if row.sound
    }
    return AccessConfig(
        principals=tuple(principals.values()),
        anonymous=principals.get(anonymous) if isinstance(anonymous, str) else LOCAL if anonymous else None,
    )


def _anonymous(reading: Reading, table: Row, names: Mapping[str, Row]) -> bool | str:
    """Whether whoever shows nothing may do everything, or nothing, or is a principal."""
    chosen: bool | str | None = table.values.get("anonymous")
    if chosen is None:
        return not names
    path = (*table.path, "anonymous")
    if chosen is False and not names:
        reading.problem(path, "lets nobody in, since there is no [[principal]]; add one", "anonymous", suspicion=True)
    if isinstance(chosen, str) and chosen not in names:
        meant = hint(chosen, list(names)) if names else "add one of this name"
        reading.problem(path, f"there is no [[principal]] {shown(chosen)}; {meant}", "anonymous")
    return chosen


def _check_apart(reading: Reading, rows: Sequence[Row], tokens: Mapping[int, Sequence[str]]) -> None:
    """Nobody is two: a name, a token, a user and a certificate are those of one principal."""
    owners: dict[tuple[str, object], tuple[int, str]] = {}
    for row in rows:
        name = row.values.get("name")
        if name == LOCAL.name:
            reading.problem((*row.path, "name"), "is the name of whoever shows nothing; give another name", "name")
        marks = [("name", name)] if name is not None else []
        marks += [("tokens", each) for each in tokens[id(row)]]
        marks += [("users", each) for each in row.values.get("users", ())]
        marks += [("certificates", each.lower()) for each in row.values.get("certificates", ())]
        for key, mark in marks:
            owner, owner_name = owners.setdefault((key, mark), (id(row), shown(name or "without a name")))
            if owner == id(row):
                continue
            if key == "name":
                sentence = f"{shown(name)} is taken by one before; give another name"
            else:
                # Of tokens not even the hash is shown: what can be copied from a log is taken for a secret.
                subject = "one of them" if key == "tokens" else shown(mark)
                sentence = f"{subject} is principal {owner_name} already; keep it at one of them"
            reading.problem((*row.path, key), sentence, key)


def _suspect(reading: Reading, row: Row, tokens: Sequence[str], anonymous: bool) -> None:
    """Hints at what is allowed and was hardly meant."""
    if not row.sound:
        return
    values = row.values
    if not (tokens or values["users"] or values["groups"] or values["certificates"] or anonymous):
        reading.problem(
            row.path, "is nobody: it has no tokens, users, groups or certificates; add some", suspicion=True
        )
    # An empty list is meant: for whoever only reads metrics.
    if not (values["operate"] or "grants" in row.given):
        reading.problem(
            row.path,
            'may do nothing; add grants = [{ exchange = "..." }] or operate = true, or grants = [] for metrics alone',
            suspicion=True,
        )
    for key in ("users", "groups"):
        if _OVERFLOW in values[key]:
            sentence = (
                f"{_OVERFLOW} is also whoever the kernel cannot name here, such as users of containers; remove it"
            )
            reading.problem((*row.path, key), sentence, key, suspicion=True)
    for index, grant in enumerate(values["grants"]):
        at = f"grants[{index}]"
        if "#" in grant.exchange:
            reading.problem(
                (*row.path, "grants"),
                "# is a plain character here; any characters are *",
                f"{at}.exchange",
                suspicion=True,
            )
        if any(len(word) > 1 and ("*" in word or "#" in word) for word in grant.routing_key.split(".")):
            reading.problem(
                (*row.path, "grants"),
                "* and # stand for whole words between dots, and are plain characters beside others",
                f"{at}.routing_key",
                suspicion=True,
            )


def _read_tokens(reading: Reading, table: Row, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """The lines NAME:HASH of ``tokens_file``; comments begin with #."""
    path = reading.path_of(table, "tokens_file")
    try:
        text = _content(reading, table, path)
    except Unfit as unfit:
        reading.problem((*table.path, "tokens_file"), unfit.sentence, "tokens_file")
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, token = (part.strip() for part in line.partition(":"))
        try:
            if not colon or name.startswith(PREFIX):
                # Perhaps a token: not to be shown.
                raise InvalidOption("is no line NAME:HASH; write those that `pubd token new NAME` prints")
            if name not in names:
                meant = hint(name, list(names)) if names else "add one of this name"
                raise InvalidOption(f"there is no [[principal]] {shown(name)}; {meant}")
            digest_in(token)
        except InvalidOption as error:
            sentence = str(error)
            reading.problems.append(Problem(where=str(path), line=number, sentence=sentence))
        else:
            yield name, token.lower()


def _content(reading: Reading, table: Row, path: Path) -> str:
    """The text of the file. Whoever can change it can become anybody."""
    try:
        # A pipe or a device would stop pubd here for good.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unfit(f"{shown(str(path))} is no regular file; name one")
        with path.open("rb") as file:
            octets = file.read(_LONGEST_FILE + 1)
        text = octets.decode("utf-8-sig")
    except OSError as error:
        raise Unfit(f"{shown(str(path))} cannot be read: {error.strerror}; check path and permissions") from None
    except UnicodeDecodeError:
        raise Unfit(f"{shown(str(path))} is not UTF-8; write it again") from None
    except Unfit:
        raise
    except ValueError:
        raise Unfit(f"{shown(str(path))} is no path; name a file") from None
    if len(octets) > _LONGEST_FILE:
        raise Unfit(f"{shown(str(path))} has more than {_LONGEST_FILE} bytes; it should have one line for each token")
    if status.st_mode & stat.S_IWOTH:
        raise Unfit(
            f"{shown(str(path))} can be changed by everybody on this host; chmod 600 it, and check what is in it"
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        reading.problem(
            (*table.path, "tokens_file"),
            f"{shown(str(path))} is open to others than its owner; chmod 600 it",
            "tokens_file",
            suspicion=True,
        )
    return text
