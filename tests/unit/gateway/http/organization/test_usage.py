"""Usage and costs through the admin API: periods, pages, groups and filters."""

import itertools
from collections import defaultdict
from typing import Any

from tests.unit.gateway.http.organization.admin_api import DAY_S, NOW_S, TODAY_S, AdminApi

ROWS: list[dict[str, Any]] = [
    {"project": project, "key": key, "model": model, "adapter": adapter, "tier": tier, "user": user}
    for project, key, user in (("p1", "k1", "u1"), ("p1", "k2", ""), ("p2", "k3", "u2"))
    for model, adapter in (("large", ""), ("large", "tuned"), ("small", ""))
    for tier in ("default", "flex")
]
"""A request of each kind; what they have used tells them apart."""


async def fill(api: AdminApi) -> list[dict[str, Any]]:
    """Add a row for each kind, today and on the day before yesterday."""
    rows = []
    for number, (row, day) in enumerate(itertools.product(ROWS, (0, 2))):
        counts = {"prompt_tokens": 10**number % 9_973, "cached_tokens": number}
        counts |= {"completion_tokens": 3 * number, "cost_nano": 7**number % 10_007}
        rows.append({"at_s": TODAY_S - day * DAY_S, **row, **counts})
        await api.add_usage(rows[-1]["at_s"], {**row, **counts})
    return rows


def value(row: dict[str, Any], group: str) -> Any:
    """What a row is under a group of the API."""
    names = {"project_id": "project", "api_key_id": "key", "user_id": "user"}
    if group == "batch":
        return row["tier"] == "flex"
    if group == "model":
        return row["adapter"] or row["model"]
    return row[{"service_tier": "tier"}.get(group, names.get(group, group))] or None


QUESTIONS: list[tuple[list[str], str, dict[str, set[object]]]] = [
    ([], "", {}),
    (["project_id"], "", {}),
    (["model", "batch"], "project_ids[]=p1", {"project_id": {"p1"}}),
    (["api_key_id", "user_id"], "models[]=tuned&models[]=small", {"model": {"tuned", "small"}}),
    (["service_tier"], "user_ids[]=u1&user_ids[]=u2", {"user_id": {"u1", "u2"}}),
    (
        ["project_id", "model"],
        "batch=false&api_key_ids[]=k3",
        {"batch": {False}, "api_key_id": {"k3"}},
    ),
]
"""Groups, filters, and what the filters let through."""


async def test_sums_are_those_of_the_rows(api: AdminApi) -> None:
    """Of each day and group, and of those rows that the filters let through."""
    everything = await fill(api)
    for groups, query, wanted in QUESTIONS:
        rows = [r for r in everything if all(value(r, g) in v for g, v in wanted.items())]
        by = "".join(f"&group_by[]={group}" for group in groups)
        path = f"start_time={TODAY_S - 3 * DAY_S}&{query}{by}"
        _, page = await api.ask("GET", "/usage/completions", query=path)
        assert sums_of_answer(page, groups) == sums_of_rows(rows, groups), groups


def sums_of_rows(rows: list[dict[str, Any]], groups: list[str]) -> dict[Any, list[int]]:
    """Requests and tokens by day and group, added up one by one."""
    found: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in rows:
        sums = found[row["at_s"], *(value(row, group) for group in groups)]
        counts = (1, row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])
        sums[:] = [a + b for a, b in zip(sums, counts, strict=True)]
    return found


def sums_of_answer(page: dict[str, Any], groups: list[str]) -> dict[Any, list[int]]:
    """The same in an answer."""
    return {
        (bucket["start_time"], *(result[group] for group in groups)): [
            result["num_model_requests"],
            *(result[f"input{kind}_tokens"] for kind in ("", "_cached")),
            result["output_tokens"],
        ]
        for bucket in page["data"]
        for result in bucket["results"]
    }


async def test_pages_have_every_period_once(api: AdminApi) -> None:
    """Also the empty ones, up to now; the first one begins at or before `start_time`."""
    query = f"start_time={TODAY_S - 9 * DAY_S + 5}&limit=4"
    starts, token, pages = [], "", 0
    while True:
        _, page = await api.ask("GET", "/usage/embeddings", query=query + token)
        starts += [bucket["start_time"] for bucket in page["data"]]
        pages += 1
        if not page["has_more"]:
            break
        token = f"&page={page['next_page']}"
    assert pages == 3
    assert starts == [TODAY_S - day * DAY_S for day in range(9, -1, -1)]


async def test_periods_are_of_the_width_asked_for(api: AdminApi) -> None:
    """A minute, an hour or a day; as many as OpenAI's API gives."""
    await api.add_usage(int(NOW_S), {"project": "p"})
    start = int(NOW_S) - 100 * DAY_S
    for width, seconds, usual in (("1m", 60, 60), ("1h", 3600, 24), ("1d", DAY_S, 7)):
        path, by = "/usage/completions", f"bucket_width={width}"
        _, page = await api.ask("GET", path, query=f"start_time={start}&{by}")
        begin = int(NOW_S) - int(NOW_S) % seconds
        _, last = await api.ask("GET", path, query=f"start_time={begin}&{by}")
        spans = {bucket["end_time"] - bucket["start_time"] for bucket in page["data"]}
        assert (len(page["data"]), spans, page["has_more"]) == (usual, {seconds}, True)
        assert [len(bucket["results"]) for bucket in last["data"]] == [1]


WRONG: list[tuple[str, str | None]] = [
    ("", "start_time"),
    ("start_time=x", "start_time"),
    ("start_time=-1", "start_time"),
    ("start_time=1e400", "start_time"),
    (f"start_time={10**30}", "start_time"),
    ("start_time=1&bucket_width=1y", "bucket_width"),
    ("start_time=1&limit=32", "limit"),
    ("start_time=1&limit=0", "limit"),
    ("start_time=1&page=page_x", "page"),
    ("start_time=1&group_by[]=team", "group_by.0"),
    ("start_time=5&end_time=5", None),
    ("start_time=1&model=large", "model"),
]
"""Questions without an answer, and the parameter that is wrong."""


async def test_questions_without_an_answer_are_refused(api: AdminApi) -> None:
    """400, and the parameter is named."""
    for query, param in WRONG:
        status, answer = await api.ask("GET", "/usage/completions", query=query)
        assert (status, answer["error"]["param"]) == (400, param), query


async def test_costs_are_exact(api: AdminApi) -> None:
    """In nano-units beside OpenAI's float, and with what devices have cost."""
    rows = await fill(api)
    for by, group in (("project_id", "project_id"), ("line_item", "model")):
        query = f"start_time={TODAY_S}&group_by[]={by}"
        _, page = await api.ask("GET", "/costs", query=query)
        expected: dict[Any, int] = defaultdict(int)
        for row in rows:
            if row["at_s"] == TODAY_S:
                end = ", tokens" if by == "line_item" else ""
                expected[value(row, group) + end] += row["cost_nano"]
        results = page["data"][0]["results"]
        assert {each[by]: each["amount"]["nano"] for each in results} == expected
        assert all(each["amount"]["value"] == each["amount"]["nano"] / 1e9 for each in results)


async def test_a_line_item_can_be_asked_for(api: AdminApi) -> None:
    """By its whole name."""
    await fill(api)
    query = f"start_time={TODAY_S}&group_by[]=line_item&line_items[]=tuned,%20tokens"
    _, page = await api.ask("GET", "/costs", query=query)
    assert [each["line_item"] for each in page["data"][0]["results"]] == ["tuned, tokens"]
