"""Instructor: structured answers in each of its modes."""

from typing import Any, Literal

import instructor
import openai
from pydantic import BaseModel

from conformance.checks import CheckTarget

ASKED: Any = [{"role": "user", "content": "Which kind are you? Answer in JSON."}]


class InstructedKind(BaseModel):
    """A structured answer that any model gives."""

    kind: Literal["model"]


def client(target: CheckTarget, mode: instructor.Mode) -> Any:
    """The SDK with Instructor's changes."""
    sdk = openai.OpenAI(base_url=target.base_url, api_key="any", max_retries=0)
    return instructor.from_openai(sdk, mode=mode)


def ask(target: CheckTarget, mode: instructor.Mode) -> None:
    """Ask for a structured answer."""
    answer = client(target, mode).chat.completions.create(
        model=target.model,
        messages=ASKED,
        response_model=InstructedKind,
        max_retries=0,
        max_tokens=64,
    )
    assert answer.kind == "model"


def check_tools(target: CheckTarget) -> None:
    ask(target, instructor.Mode.TOOLS)


def check_strict_tools(target: CheckTarget) -> None:
    ask(target, instructor.Mode.TOOLS_STRICT)


def check_json_schema(target: CheckTarget) -> None:
    ask(target, instructor.Mode.JSON_SCHEMA)


def check_json(target: CheckTarget) -> None:
    ask(target, instructor.Mode.JSON)


def check_json_in_markdown(target: CheckTarget) -> None:
    ask(target, instructor.Mode.MD_JSON)


def check_a_partial_stream(target: CheckTarget) -> None:
    parts = list(
        client(target, instructor.Mode.TOOLS).chat.completions.create_partial(
            model=target.model, messages=ASKED, response_model=InstructedKind, max_tokens=64
        )
    )
    assert parts[-1].kind == "model"
