"""Descriptions of the inference routes, which bypass FastAPI, for `/openapi.json` and `/docs`."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

from gateway.config.route_paths import FORM_ROUTES, JSON_ROUTES
from gateway.errors.anthropic import is_anthropic

Schema = dict[str, Any]  # OpenAPI's own type
ERROR: Schema = {
    "description": "An error in OpenAI's shape",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}
"""Description of an error, also for the routes that FastAPI answers."""
ANTHROPIC_ERROR: Schema = {
    "description": "An error in Anthropic's shape",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["type", "error", "request_id"],
                "properties": {
                    "type": {"const": "error"},
                    "error": {
                        "type": "object",
                        "required": ["type", "message"],
                        "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                    },
                    "request_id": {"type": "string"},
                },
            }
        }
    },
}
"""Description of an error on the routes of Anthropic's API."""
_ANSWER: Schema = {
    "description": "The engine's answer, unchanged",
    "content": {
        "application/json": {"schema": {}},
        "text/event-stream": {"schema": {"type": "string"}},
    },
}
_HEAD: Schema = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string"}},
    "additionalProperties": True,
}
_FORM: Schema = {
    "type": "object",
    "required": ["model", "file"],
    "properties": {"model": {"type": "string"}, "file": {"type": "string", "format": "binary"}},
    "additionalProperties": True,
}


def inference_documents() -> APIRouter:
    """Routes that exist for the description only: requests to them never reach FastAPI."""
    router = APIRouter(tags=["inference"])
    _describe(router, JSON_ROUTES, "application/json", _HEAD)
    _describe(router, FORM_ROUTES, "multipart/form-data", _FORM)
    return router


def _describe(router: APIRouter, routes: Mapping[str, str], kind: str, schema: Schema) -> None:
    for path, summary in routes.items():
        error = ANTHROPIC_ERROR if is_anthropic(path) else ERROR
        answers: dict[int | str, Schema] = {200: _ANSWER}
        answers |= dict.fromkeys((400, 404, 408, 413, 429, 502, 503, 504), error)
        router.add_api_route(
            path,
            _unreachable,
            methods=["POST"],
            summary=summary,
            name=path,
            responses=answers,
            openapi_extra={
                "requestBody": {"required": True, "content": {kind: {"schema": schema}}}
            },
        )


def add_docs_page(app: FastAPI) -> None:
    """Serve `/docs`: one static page that lists the routes and loads nothing else."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """All routes, from the OpenAPI document."""
        return HTMLResponse(docs_page(app.openapi()))


def docs_page(document: Schema) -> str:
    """An OpenAPI document's routes as HTML."""
    rows = "\n".join(_rows(document["paths"]))
    title = escape(document["info"]["title"])
    return f"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}: routes</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
td {{ padding: 0 1.5em 0 0 }}
</style>
<h1>{title}</h1>
<p>Routes of this gateway. The machine-readable description is
<a href="openapi.json">openapi.json</a>; request bodies are those of OpenAI's and Anthropic's APIs
and of vLLM, as far as the model's engine supports them.</p>
<table>
{rows}
</table>
</html>
"""


def _rows(paths: Schema) -> Iterator[str]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            cells = (
                f"{method.upper()} <code>{escape(path)}</code>",
                escape(operation.get("summary", "")),
            )
            yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


async def _unreachable() -> None:
    raise RuntimeError("requests to inference routes must not reach FastAPI")
