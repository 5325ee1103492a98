"""Alert rules and dashboard: they fire as their own tests say, and name no metric or label that pubd does not have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import attrs
import pytest

from pubd.config import Config
from pubd.operate.reading import IntakeReading
from pubd.spool.base import Limits
from tests.operating import ROOT, Shown, Values, promtool
from tests.rig import Rig

RULES = ROOT / "packaging/prometheus/pubd.rules.yml"
DASHBOARD = ROOT / "packaging/grafana/pubd.json"
PAGE = ROOT / "docs/metrics.rst"
#: What Prometheus makes itself.
PROMETHEUS = {"up", "ALERTS"}
#: Labels that come with scraping, or with a histogram's samples.
ALWAYS = {"job", "instance", "le"}
NAME = re.compile(r"\b(?:pubd|process|up)(?:_[a-z_]+)?\b(?![(\"])")


@attrs.define
class SpansRead:
    """Of a tracing that would be there."""

    made: int = 3
    exported: int = 2
    failed: int = 1


@pytest.fixture(scope="module")
def values() -> Values:
    """A page with everything that there can be."""
    reading = IntakeReading(
        name="http",
        unanswered=lambda: 0,
        max_unanswered=1,
        connections=lambda: 0,
        max_connections=1,
        refused=lambda: 0,
        answers=lambda: {200: 1},
    )
    rig = Rig()
    limits = Limits(max_bytes=1 << 30, max_rows=1000, min_free=1)
    shown = Shown(rig, limits=limits, intakes=(reading,), path=Path("/tmp/spool.db"), spans=SpansRead())
    rig.start()
    rig.send("a")
    rig.send("b", key="nowhere")
    found = shown.values()
    rig.stop()
    return found


def rules() -> Iterator[str]:
    """The expressions of the alerts; the file is YAML without anything hard in these lines."""
    return iter(re.findall(r"^        expr: (.*)$", RULES.read_text(), re.MULTILINE))


def panels() -> Iterator[dict[str, Any]]:
    return iter(json.loads(DASHBOARD.read_text())["panels"])


def queries() -> Iterator[str]:
    """The expressions of the dashboard, its variables included."""
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def unknown(expression: str, values: Values) -> list[str]:
    """Metrics and labels in ``expression`` that are not there."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    without = re.sub(r"\{[^}]*\}|\b(?:by|on) ?\([^)]*\)|\[[^]]*\]", " ", plain)
    names = set(NAME.findall(without)) - {"up"} - PROMETHEUS
    assert names or "up" in without, f"no metric in {expression}"
    wrong = sorted(names - values.names)
    labels = {label for name in names for found in values.labels(name) for label in found} | ALWAYS
    used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    used |= {label for group in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", plain) for label in re.findall(r"\w+", group)}
    return wrong + sorted(used - labels)


def test_the_rules_are_rules() -> None:
    code, said = promtool("check", "rules", str(RULES))
    assert code == 0, said
    assert f"{len([*rules()])} rules found" in said


def test_the_alerts_fire_when_they_should_and_not_otherwise() -> None:
    code, said = promtool("test", "rules", str(RULES.with_name("pubd.rules.test.yml")))
    assert code == 0, said


def test_the_rules_name_what_there_is(values: Values) -> None:
    found = [*rules()]
    assert len(found) > 10
    assert {each: unknown(each, values) for each in found if unknown(each, values)} == {}


def test_the_dashboard_names_what_there_is(values: Values) -> None:
    found = [*queries()]
    assert len(found) > 20
    assert {each: unknown(each, values) for each in found if unknown(each, values)} == {}


def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    expressions = [each for each in queries() if not each.startswith("label_values(")]
    assert len(expressions) > 20
    filled = [
        each.replace("$__rate_interval", "5m").replace("$job", "j").replace("$instance", "i") for each in expressions
    ]
    assert not any("$" in each for each in filled)
    # JSON is YAML, too.
    rules = [{"record": f"r{number}", "expr": each} for number, each in enumerate(filled)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, said = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert code == 0, said


def test_a_name_that_is_not_there_is_found(values: Values) -> None:
    assert unknown("rate(pubd_gone_total[5m])", values) == ["pubd_gone_total"]
    assert unknown('pubd_messages{colour="red"}', values) == ["colour"]
    assert unknown("sum by (colour) (pubd_messages)", values) == ["colour"]


def test_each_state_that_they_select_is_one(values: Values) -> None:
    for expression in (*rules(), *queries()):
        for name, label, value in re.findall(r'(pubd_\w+)\{[^}]*\b(state|outcome)="(\w+)"', expression):
            if label == "state":
                assert values(name, state=value) is not None, expression
            else:
                assert value in ("returned", "nacked"), expression


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_their_own_ids() -> None:
    cells: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    for panel in panels():
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= mine


def test_every_metric_is_in_the_documentation_and_no_other(values: Values) -> None:
    families = {
        f"{name}_total" if family.type == "counter" else name
        for name, family in values.families.items()
        if name.startswith("pubd_")
    }
    described = set(re.findall(r"^``(pubd_\w+)``", PAGE.read_text(), re.MULTILINE))
    assert described == families


def test_every_metric_is_on_the_dashboard_or_in_an_alert_or_is_left_out_on_purpose(values: Values) -> None:
    used = {name for expression in (*rules(), *queries()) for name in NAME.findall(expression)}
    families = {name for name in values.families if name.startswith("pubd_")}
    left_out = {name for name in families if not any(each.startswith(name) for each in used)}
    assert left_out == {"pubd_in_flight_bytes", "pubd_spool_max_messages"}


@pytest.mark.parametrize("page", ["metrics", "logs", "tracing"])
def test_each_piece_of_configuration_is_without_a_mistake(page: str) -> None:
    text = (ROOT / f"docs/{page}.rst").read_text()
    found = re.findall(r"^\.\. code-block:: toml\n\n((?:\n|   .*\n)+)", text, re.MULTILINE)
    assert found
    for toml in found:
        assert not Config.parse(dedent(toml), {}).hints
