"""[tracing] of pubd.toml: what it takes, and that no sentence about it shows a credential."""

from __future__ import annotations

from pathlib import Path

import pytest

from pubd.config import Config
from pubd.operate.tracing_options import TracingOptions
from tests.config_texts import PASSWORD, problem, problems

ENDPOINT = "http://collector:4318/v1/traces"


def parsed(text: str, **environ: str) -> TracingOptions | None:
    return Config.parse(text, environ).tracing


def test_without_an_endpoint_there_is_none() -> None:
    assert parsed("") is None
    assert parsed("[tracing]\nratio = 1\n") is None


def test_everything() -> None:
    text = f"""
[tracing]
endpoint = "{ENDPOINT}"
ratio = 0.5
service_name = "shop"
headers = {{ Authorization = "Bearer {PASSWORD}" }}
timeout = "1s"
"""
    options = parsed(text)
    assert options == TracingOptions(
        endpoint=ENDPOINT,
        ratio=0.5,
        service_name="shop",
        headers={"Authorization": f"Bearer {PASSWORD}"},
        timeout=1.0,
    )
    assert PASSWORD not in repr(options)


def test_what_it_is_without() -> None:
    assert parsed(f'[tracing]\nendpoint = "{ENDPOINT}"\n') == TracingOptions(endpoint=ENDPOINT, ratio=0.01)


def test_the_environment_goes_first(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text(f"Authorization: Bearer {PASSWORD}:x\n\nX-Tenant:  a\n")
    options = parsed(
        "[tracing]\nratio = 1\n",
        PUBD_TRACING_ENDPOINT=ENDPOINT,
        PUBD_TRACING_RATIO="0.25",
        PUBD_TRACING_HEADERS_FILE=str(tmp_path / "headers"),
    )
    assert options is not None
    assert (options.endpoint, options.ratio) == (ENDPOINT, 0.25)
    assert options.headers == {"Authorization": f"Bearer {PASSWORD}:x", "X-Tenant": "a"}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("5", 'must be text such as "http://localhost:4318/v1/traces", not a number'),
        ('"collector:4317"', 'is no http(s) URL; write one such as "http://localhost:4318/v1/traces"'),
        ('"grpc://collector/v1/traces"', "is no http(s) URL"),
        ('"http://[::1/v1/traces"', "is no http(s) URL"),
        ('"http://host:99999/v1/traces"', "is no http(s) URL"),
        ('"http://h/\\u00e4"', "is no http(s) URL"),
        ('"http://collector:4318"', 'has no path; collectors take traces at "http://collector:4318/v1/traces"'),
        (f'"http://u:{PASSWORD}@collector/v1/traces"', "has a user or password in it; give a header Authorization"),
    ],
)
def test_endpoints_that_are_none(value: str, sentence: str) -> None:
    told = problem(f"[tracing]\nendpoint = {value}\n")
    assert f"[tracing] endpoint: {sentence}" in told
    assert PASSWORD not in told


@pytest.mark.parametrize("value", ["-0.1", "1.1", '"half"', "true", "nan"])
def test_a_ratio_is_a_share(value: str) -> None:
    assert "[tracing] ratio: must be a number from 0 to 1, such as 0.01" in problem(f"[tracing]\nratio = {value}\n")


def test_a_ratio_from_the_environment_is_a_share_too() -> None:
    assert "must be a number from 0 to 1" in problem("", {"PUBD_TRACING_RATIO": "many"})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('"x"', "must be a table such as"),
        (f'{{ "a b" = "{PASSWORD}" }}', "'a b' is no name of an HTTP header"),
        (f'{{ a = "{PASSWORD}\\n" }}', "must be text of printable ASCII characters"),
        ("{ a = 1 }", "headers.a: must be text of printable ASCII characters"),
    ],
)
def test_headers_that_are_none(value: str, sentence: str) -> None:
    told = problem(f"[tracing]\nheaders = {value}\n")
    assert sentence in told
    assert PASSWORD not in told


def test_a_file_of_headers_has_lines_of_them(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text(PASSWORD)
    (told,) = problems("[tracing]\nheaders_file = 'headers'\n", path=tmp_path / "pubd.toml")
    assert "has a line without a colon; write NAME: VALUE, one a line" in str(told)
    assert PASSWORD not in str(told)
