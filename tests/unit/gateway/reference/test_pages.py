"""The reference tables and the pages of docs/ that have them."""

import re
from pathlib import Path

import pytest

from gateway.config.route_paths import ROUTES
from gateway.errors.startup import ConfigError, PlacementFailed
from gateway.header_names import ENGINE_HEADERS, REQUEST_HEADERS, RESPONSE_HEADERS
from gateway.reference.error_tables import client_errors, error_tables
from gateway.reference.markdown import table
from gateway.reference.pages import TABLES, Topic, filled, marked, printed

ROOT = Path(__file__).parents[4]
PAGES = sorted((ROOT / "docs").glob("*.md"))
HEADER = re.compile(rb'b"(x-[a-z][a-z-]*[a-z]|traceparent|tracestate)"')


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_up_to_date(path: Path) -> None:
    """Its tables are those that the code generates now."""
    page = path.read_text()
    assert filled(page) == page, "run: gateway docs --update docs"


def test_every_table_is_on_a_page() -> None:
    """No table is generated without a page for it."""
    shown = {mark for path in PAGES for mark in marked(path.read_text())}
    assert shown == {(topic.value, name) for topic, tables in TABLES.items() for name in tables()}


def test_an_unknown_table_is_an_error() -> None:
    """A page must not mark a table that is not generated."""
    with pytest.raises(KeyError):
        filled("<!-- table: errors haproxy -->\n<!-- end of table -->")
    with pytest.raises(ValueError, match="nothing"):
        filled("<!-- table: nothing gateway -->\n<!-- end of table -->")


@pytest.mark.parametrize("topic", TABLES)
def test_a_topic_prints_all_its_tables(topic: Topic) -> None:
    """Each table below its name."""
    names = re.findall(r"(?m)^## (.*)$", printed(topic))
    assert names == list(TABLES[topic]())


def test_a_cell_stays_in_its_row() -> None:
    """Line breaks and bars do not break a table."""
    text = table(("a", "b"), [("one\n  two", "x | y")])
    assert text == "| a | b |\n| --- | --- |\n| one two | x \\| y |"


@pytest.mark.parametrize(
    ("page", "phrase"),
    [
        ("operations.md", "slower than necessary"),
        ("operations.md", "no direct ingress"),
        ("autoscaling.md", "its load needs"),
        ("placement.md", "its engine waits for Ray to place it"),
        ("placement.md", "the room made for it went to another model"),
    ],
)
def test_a_log_line_that_a_page_quotes_is_written(page: str, phrase: str) -> None:
    """Operators search for what the pages quote."""
    assert phrase in (ROOT / "docs" / page).read_text()
    assert any(phrase in path.read_text() for path in (ROOT / "deployments").rglob("*.py"))


def test_every_error_that_a_client_may_see_has_its_row() -> None:
    """Status, type and code of each class, and a meaning."""
    rows = error_tables()["gateway"].splitlines()[2:]
    for error in client_errors():
        start = f"| {error.status} | `{error.code}` | `{error.type}` | "
        (row,) = (row for row in rows if row.startswith(start))
        assert len(row) > len(start) + 5
    assert not any(error.code in row for error in (ConfigError, PlacementFailed) for row in rows)


def test_every_header_in_the_code_is_in_the_catalogue() -> None:
    """The gateway names its headers in one module, and engines use no others."""
    known = {each.name for each in (*REQUEST_HEADERS, *RESPONSE_HEADERS, *ENGINE_HEADERS)}
    elsewhere = {
        path.relative_to(ROOT).as_posix(): names
        for package in ("gateway", "deployments")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "header_names.py" and (names := HEADER.findall(path.read_bytes()))
    }
    assert {path for path in elsewhere if path.startswith("gateway/")} == set()
    assert {name for names in elsewhere.values() for name in names} <= known


def test_every_inference_route_is_documented() -> None:
    """The page of reference lists all routes, with their methods."""
    page = (ROOT / "docs" / "reference.md").read_text()
    routes = page.partition("## Routes")[2].partition("are not relayed")[0]
    assert set(re.findall(r"`(?:POST )?(/[^` ]*)`", routes)) >= ROUTES
