"""A spool of which pages are broken: verify counts what is left, export gives all of it."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from pubd.errors import SpoolError
from pubd.intake.exported import exported_object
from pubd.intake.wire import dumps
from pubd.spool import offline
from pubd.spool.base import Exported
from tests.unit.test_sqlite_spool import Bench

PAGE = 4096
COUNT = 400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool with 400 messages, some of them larger than a page, on some hundred pages."""
    bench = Bench(tmp_path / "spool.db")
    bench.open()
    for part in range(COUNT // 10):
        bench.append(10, b"x" * (9000 if part % 10 == 5 else 600))
    bench.close()
    return bench.path


def roots(path: Path, which: str) -> list[int]:
    connection = apsw.Connection(str(path))
    found = [root for (root,) in connection.execute(f"SELECT rootpage FROM sqlite_schema WHERE {which}")]
    connection.close()
    return found


def leaves(path: Path) -> dict[int, int]:
    """Numbers of the table's pages that have rows in them, and of how many."""
    (root,) = roots(path, "name = 'message'")
    content = path.read_bytes()
    found: dict[int, int] = {}
    pages = [root]
    while pages:
        number = pages.pop(0)
        page = content[(number - 1) * PAGE : number * PAGE]
        if page[0] == 13:
            found[number] = int.from_bytes(page[3:5])
            continue
        cells = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n]) for n in range(int.from_bytes(page[3:5]))]
        pages += [int.from_bytes(page[at : at + 4]) for at in cells] + [int.from_bytes(page[8:12])]
    return found


def break_pages(path: Path, numbers: list[int]) -> None:
    content = bytearray(path.read_bytes())
    for number in numbers:
        content[(number - 1) * PAGE : number * PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)


def all_of(path: Path) -> tuple[list[Exported], offline.PartlyRead | None]:
    found: list[Exported] = []
    try:
        for each in offline.export(path):
            dumps(exported_object(each))
            found.append(each)
    except offline.PartlyRead as error:
        return found, error
    return found, None


@pytest.mark.parametrize("which", ["first", "last", "middle", "two", "every third", "both ends", "neighbours"])
def test_what_is_on_other_pages_is_exported_in_order(path: Path, which: str) -> None:
    seqs = [each.entry.seq for each in all_of(path)[0]]
    assert len(seqs) == COUNT
    rows = leaves(path)
    pages = list(rows)
    middle = len(pages) // 2
    broken = {
        "first": pages[:1],
        "last": pages[-1:],
        "middle": [pages[middle]],
        "two": [pages[middle], pages[middle + 2]],
        "every third": pages[::3],
        "both ends": [pages[0], pages[-1]],
        "neighbours": pages[3:6] + pages[-9:-5],
    }[which]
    break_pages(path, broken)
    found, error = all_of(path)
    left = [each.entry.seq for each in found]
    assert left == sorted(set(left))
    assert set(left) <= set(seqs)
    assert error is not None
    assert error.missing == COUNT - len(left)
    assert len(left) == COUNT - sum(rows[page] for page in broken)
    assert not any(each.damaged for each in found)
    problems = offline.verify(path).problems
    assert "a part of the messages cannot be read" in problems
    assert f"the books say {COUNT} ready, there are {len(left)}" in problems
    assert any(each.startswith("SQLite: ") for each in problems)
    # Without indices nearly as much is found.
    break_pages(path, roots(path, "type = 'index'"))
    assert len(all_of(path)[0]) >= len(left) * 0.8


def test_flipped_bits_are_never_the_end_of_it(path: Path) -> None:
    """Wherever they are: what is left is exported, or a sentence says that nothing can be read."""
    whole = path.read_bytes()
    exported = 0
    for seed in range(30):
        dice = random.Random(seed)
        content = bytearray(whole)
        for _ in range(40):
            content[dice.randrange(PAGE, len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        said = ""
        try:
            exported += len(all_of(path)[0])
            offline.verify(path)
        except SpoolError as error:
            said = str(error)
        assert not said or ("damaged" in said and "'sqlite3 " in said and "pubd export" not in said)
    assert exported >= 20 * COUNT


def test_what_the_table_has_still_is_exported_without_any_index(path: Path) -> None:
    break_pages(path, roots(path, "type = 'index'"))
    found, error = all_of(path)
    assert (len(found), error) == (COUNT, None)
    assert any(each.startswith("SQLite: ") for each in offline.verify(path).problems)


def test_names_of_exchanges_are_found_in_their_index(path: Path) -> None:
    break_pages(path, roots(path, "name = 'exchange'"))
    found, error = all_of(path)
    assert (len(found), error) == (COUNT, None)
    assert not any(each.damaged for each in found)


def test_without_its_books_a_spool_says_what_else_may_help(path: Path) -> None:
    break_pages(path, roots(path, "name = 'books'"))
    for look in (offline.verify, lambda path: list(offline.export(path))):
        with pytest.raises(SpoolError, match=r"'sqlite3 .* \.recover'"):
            look(path)
