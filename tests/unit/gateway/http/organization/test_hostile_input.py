"""Texts that have broken other gateways' databases, in every field and every path."""

import json
from typing import Any

from gateway.serving.admin_call import AdminCall
from tests.unit.gateway.http.organization.admin_api import AdminApi

TEXTS = [
    "'; DROP TABLE projects; --",
    '" OR 1=1 --',
    "' UNION SELECT hash FROM api_keys --",
    "%' OR '1'='1",
    "{{7*7}} ${7*7} [red]x[/red]",
    "<script>alert(1)</script>",
    "Ünïcode 雪 🙂",
    "\\x00 \\u0000",
    "../../etc/passwd",
]
"""Harmless if they stay what they are: texts."""
BROKEN = ["a\x00b", "a\nb", "a\x1b[2J", "\u2028", "x" * 257]
"""What a database, a log or a terminal cannot hold."""


async def test_texts_stay_texts(api: AdminApi) -> None:
    """What is written into any field is read back unchanged, and nothing else happens."""
    for text in TEXTS:
        await check_text(api, text)


async def check_text(api: AdminApi, text: str) -> None:
    """Write a text into all fields of a new project, and read it back."""
    other = await api.create_project("other")
    project = await api.create_project(text, models=[text])
    path = f"/projects/{project}"
    _, account = await api.ask("POST", f"{path}/service_accounts", {"name": text, "models": [text]})
    await api.ask("POST", f"{path}/service_accounts/{account['id']}/api_keys", {"name": text})
    _, user = await api.ask("POST", f"{path}/users", {"role": "member", "email": text})
    _, admin = await api.ask("POST", "/admin_api_keys", {"name": text})
    channel = {"type": "email", "recipients": [text], "subject_prefix": text}
    alert = {"currency": "USD", "interval": "month", "threshold_amount": 1}
    _, alerted = await api.ask(
        "POST", f"{path}/spend_alerts", alert | {"notification_channel": channel}
    )

    _, shown = await api.ask("GET", path)
    _, keys = await api.ask("GET", f"{path}/api_keys")
    _, log = await api.ask("GET", "/audit_logs", query=f"project_ids[]={project}&limit=100")
    assert (shown["name"], shown["models"]) == (text, [text])
    assert [key["name"] for key in keys["data"]] == ["Secret Key", text]
    assert [key["owner"]["service_account"]["name"] for key in keys["data"]] == [text, text]
    assert (account["name"], user["email"], admin["name"]) == (text, text, text)
    assert alerted["notification_channel"] == channel
    assert [entry["project"]["name"] for entry in log["data"]] == [text] * 6
    assert (await api.ask("GET", f"/projects/{other}"))[1]["name"] == "other"


async def test_texts_in_paths_and_queries_find_nothing(api: AdminApi) -> None:
    """Neither more than an unknown id would, nor an internal error."""
    project = await api.create_project()
    await api.create_account(project)
    for text in TEXTS:
        quoted = "".join(f"%{byte:02x}" for byte in text.encode())
        for path in (
            f"/projects/{quoted}",
            f"/projects/{project}/api_keys/{quoted}",
            f"/projects/{project}/service_accounts/{quoted}",
            f"/projects/{project}/spend_alerts/{quoted}",
            f"/admin_api_keys/{quoted}",
            f"/users/{quoted}",
        ):
            assert (await api.ask("GET", path))[0] == 404, path
        for path in ("/projects", f"/projects/{project}/api_keys", "/audit_logs"):
            assert (await api.ask("GET", path, query=f"after={quoted}"))[0] == 400
        for name in ("event_types", "actor_ids", "project_ids", "resource_ids"):
            status, log = await api.ask("GET", "/audit_logs", query=f"{name}[]={quoted}")
            assert (status, log["data"]) == (200, [])
        for name in ("project_ids", "user_ids", "api_key_ids", "models"):
            query = f"start_time=1796000000&{name}[]={quoted}"
            assert (await api.ask("GET", "/usage/completions", query=query))[0] == 200


async def test_what_cannot_be_kept_is_refused(api: AdminApi) -> None:
    """In bodies, in queries and in paths: 400 or 404, never an internal error."""
    project = await api.create_project()
    for text in BROKEN:
        quoted = "".join(f"%{byte:02x}" for byte in text.encode())
        for path, body in (
            ("/projects", {"name": text}),
            (f"/projects/{project}", {"models": [text]}),
            (f"/projects/{project}/service_accounts", {"name": text}),
            (f"/projects/{project}/users", {"role": "member", "email": text}),
            (f"/projects/{project}/users", {"role": "member", "user_id": text}),
            ("/admin_api_keys", {"name": text}),
        ):
            assert (await api.ask("POST", path, body))[0] == 400, path
        for path in (f"/projects/{quoted}", f"/projects/{project}/api_keys/{quoted}"):
            assert (await api.ask("GET", path))[0] == 404
        limit = f"/projects/{project}/rate_limits/rl-{quoted}"
        assert (await api.ask("POST", limit, {"max_requests_per_1_minute": 1}))[0] == 404
        for path in ("/projects", f"/projects/{project}/api_keys"):
            assert (await api.ask("GET", path, query=f"after={quoted}"))[0] == 400


BODIES: list[tuple[str, bytes]] = [
    ("half a character", b'{"name": "\\ud800"}'),
    ("no UTF-8", b'{"name": "\xff"}'),
    ("no JSON", b"{"),
    ("a number that is none", b'{"name": "x", "weight": NaN}'),
    ("an endless number", b'{"name": "x", "weight": 1e999}'),
    ("many digits", b'{"name": "x", "weight": ' + b"9" * 5000 + b"}"),
    ("very deep", b"[" * 100_000),
    ("a list", b"[]"),
    ("empty", b""),
]


async def test_bodies_that_are_wrong_are_refused(api: AdminApi) -> None:
    """400 in OpenAI's envelope, never an internal error."""
    for kind, body in BODIES:
        call = AdminCall(method="POST", path="/v1/organization/projects", body=body, actor="a")
        answer = await api.administration.administer(call)
        error: dict[str, Any] = json.loads(answer.body)["error"]
        assert answer.status == 400, kind
        assert error["type"] == "invalid_request_error"


async def test_other_paths_are_unknown(api: AdminApi) -> None:
    """404, whatever the path is; 405 for another method, both in OpenAI's envelope."""
    for method, path, status in (
        *(("GET", path, 404) for path in ("/v1/organization", "/v1/organization/", "/v1/x")),
        ("GET", "/%ff%fe", 404),
        ("PUT", "/v1/organization/projects", 405),
    ):
        answer = await api.administration.administer(AdminCall(method=method, path=path))
        assert answer.status == status
        assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
