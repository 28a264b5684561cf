"""Descriptions of the inference routes for `/openapi.json`: FastAPI never gets to see them."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from gateway.request.routes import FORM_ROUTES, JSON_ROUTES

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
_ANSWER: Schema = {
    "description": "The engine's answer, as it comes",
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
    """Routes that only describe; the requests themselves never reach FastAPI."""
    router = APIRouter(tags=["inference"])
    _describe(router, JSON_ROUTES, "application/json", _HEAD)
    _describe(router, FORM_ROUTES, "multipart/form-data", _FORM)
    return router


def _describe(router: APIRouter, routes: Mapping[str, str], kind: str, schema: Schema) -> None:
    answers: dict[int | str, Schema] = {200: _ANSWER}
    answers |= dict.fromkeys((400, 404, 408, 413, 429, 502, 503, 504), ERROR)
    for path, summary in routes.items():
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


async def _unreachable() -> None:
    raise RuntimeError("inference requests never reach FastAPI")
