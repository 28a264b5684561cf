"""How a model's chat template renders conversations, found by rendering some with vLLM.

The prefix keys of routers depend on it. What cannot be found out counts as unknown: keys then tell
more prompts apart than the engine does, and never fewer.
"""

import logging
from collections.abc import Sequence
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers.hf import (
    HfRenderer,
    _resolve_chat_template_kwargs,
    resolve_chat_template,
)
from vllm.renderers.online_renderer import OnlineRenderer

from gateway.telemetry.facts import PromptLayout

_ID = "a1b2c3d4e"
"""Id of a tool call; Mistral's templates demand nine characters."""
_CALL = {
    "id": _ID,
    "type": "function",
    "function": {"name": "namefunction", "arguments": '{"a":1}'},
}
_HERMES_CALL = '<tool_call>\n{"name": "namefunction", "arguments": {"a": 1}}\n</tool_call>'
_RESULT = {"role": "tool", "tool_call_id": _ID, "content": "resulttext"}
_TOOL = {"type": "function", "function": {"name": "nametool", "parameters": {"type": "object"}}}

logger = logging.getLogger(__name__)
Messages = list[dict[str, object]]


async def find_prompt_layout(renderer: OnlineRenderer) -> PromptLayout:
    """How the template of a running vLLM renders conversations."""
    probes = _Probes(renderer)
    try:
        return PromptLayout(
            has_tools_first=await probes.has_tools_first(),
            has_tools_always=not renderer.exclude_tools_when_tool_choice_none,
            separator=await probes.separator(),
            developers=await probes.developers(),
            has_names=await probes.has_names(),
            has_call_ids=await probes.has_call_ids(),
            has_hermes_calls=await probes.has_hermes_calls(),
            reasoning=await probes.reasoning(),
            omits_empty_system=await probes.omits_empty_system(),
            joins_system=await probes.joins_system(),
            arguments=_arguments(renderer),
        )
    except Exception:
        logger.exception("the chat template cannot be examined: prefix keys assume that all counts")
        return PromptLayout()


class _Probes:
    """Conversations of which each shows one property of the template."""

    def __init__(self, renderer: OnlineRenderer) -> None:
        self._renderer = renderer

    async def has_tools_first(self) -> bool:
        messages = [_said("system", "systemtext"), _said("user", "usertext")]
        prompt = await self._render(messages, tools=[_TOOL])
        tools, system = prompt.find("nametool"), prompt.find("systemtext")
        return 0 <= tools < system

    async def separator(self) -> str:
        parts = [{"type": "text", "text": text} for text in ("firsttext", "secondtext")]
        prompt = await self._render([_said("user", parts)])
        between = prompt.partition("firsttext")[2].partition("secondtext")
        return between[0] if between[1] else ""

    async def developers(self) -> Any:  # noqa: ANN401 - one of the layout's literals
        user = _said("user", "usertext")
        system = await self._render([_said("system", "systemtext"), user])
        developer = [_said("developer", "systemtext"), user]
        if await self._render(developer) != system:
            return "own"
        prompt = await self._render([*developer, _said("system", "secondtext"), user])
        return "joined" if "systemtext\n\nsecondtext" in prompt else "system"

    async def has_names(self) -> bool:
        prompt = await self._render([{**_said("user", "usertext"), "name": "nameuser"}])
        return not prompt or "nameuser" in prompt

    async def has_call_ids(self) -> bool:
        prompt = await self._render(_called("callertext"))
        return not prompt or _ID in prompt

    async def has_hermes_calls(self) -> bool:
        alone = await self._render(_called(""))
        with_text = await self._render(_called("callertext"))
        return _HERMES_CALL in alone and f"callertext\n{_HERMES_CALL}" in with_text

    async def reasoning(self) -> Any:  # noqa: ANN401 - one of the layout's literals
        answered = [_said("user", "usertext"), _said("assistant", "answertext")]
        answered[1]["reasoning"] = "earlierthought"
        called = _called("callertext")
        called[1]["reasoning"] = "latestthought"
        prompt = await self._render([*answered, *called])
        if not prompt or "earlierthought" in prompt:
            return "always"
        return "until_user" if "latestthought" in prompt else "never"

    async def omits_empty_system(self) -> bool:
        user = _said("user", "usertext")
        without = await self._render([user])
        return bool(without) and await self._render([_said("system", ""), user]) == without

    async def joins_system(self) -> bool:
        user = _said("user", "usertext")
        turn = [_said("system", "systemtext"), user]
        prompt = await self._render([*turn, _said("system", "secondtext"), user])
        if prompt:
            return "systemtextsecondtext" in prompt
        return bool(await self._render(turn))  # vLLM joins where the template refuses

    async def _render(self, messages: Messages, tools: Sequence[object] = ()) -> str:
        """The prompt as text; empty if the template refuses the conversation."""
        try:
            fields: dict[str, object] = {"messages": messages}
            if tools:
                fields["tools"] = tools
            if not self._renderer.exclude_tools_when_tool_choice_none:
                fields["tool_choice"] = "none"  # without a parser, vLLM refuses all others
            request = ChatCompletionRequest.model_validate(fields)
            rendered = await self._renderer.render_chat(request)
            if not isinstance(rendered, tuple):
                return ""
            ids = rendered[1][0]["prompt_token_ids"]
            return str(self._renderer.renderer.get_tokenizer().decode(ids))
        except Exception as error:  # noqa: BLE001 - templates raise whatever they like
            logger.debug("the chat template refuses a conversation: %s", error)
            return ""


def _arguments(renderer: OnlineRenderer) -> tuple[str, ...] | None:
    """Variables that the template reads; None if they cannot be known."""
    tokenizer = renderer.renderer.tokenizer
    if not isinstance(renderer.renderer, HfRenderer) or tokenizer is None:
        return None
    if renderer.use_harmony:
        return None
    names: set[str] = set()
    variants: tuple[list[dict[str, Any]] | None, ...] = (None, [])
    for tools in variants:
        template = resolve_chat_template(
            tokenizer, renderer.chat_template, tools, model_config=renderer.model_config
        )
        names |= _resolve_chat_template_kwargs(template or "")
    return tuple(sorted(names))


def _said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def _called(text: str) -> Messages:
    """A conversation in which the assistant has called a tool."""
    answer = {**_said("assistant", text), "tool_calls": [_CALL]}
    return [_said("user", "usertext"), answer, dict(_RESULT)]
