"""Compares prefix keys with the prompts that vLLM renders; run in a process of its own.

Usage: `python -m tests.contract.rendering SEED CONVERSATIONS TEMPLATE`; prints what differs.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from vllm import AsyncEngineArgs
from vllm.config import VllmConfig
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.exceptions import VLLMValidationError
from vllm.renderers import renderer_from_config
from vllm.renderers.online_renderer import OnlineRenderer

from deployments.engines.vllm.api.messages_request import MessagesRequest
from deployments.engines.vllm.api.messages_serving import chat_request
from deployments.engines.vllm.api.refused_request import RefusedRequest
from deployments.engines.vllm.api.responses_request import OpenAIResponsesRequest
from deployments.engines.vllm.prompt_layout import find_prompt_layout
from gateway.kvcache.prefix import KEY_BYTES, Prompt, prompt_of
from gateway.request.head import parse_json
from gateway.telemetry.facts import PromptLayout
from tests.contract.conversations import CHAT, MESSAGES, Fields, Speaker, Spelled
from tests.contract.odd_requests import OddRequests

FOLDER = Path(__file__).parents[2] / "models" / "demo"
SLACK = 800
"""Bytes that a template writes around a prompt's texts, at most."""
DENSITY = 0.6
"""Share of a rendered prompt that is canonical text, at least."""
SYSTEM_FIRST = """
{%- for m in messages -%}
{%- if loop.first -%}
{%- if m.role == 'system' and m.content -%}<|system|>{{ m.content }}{%- endif -%}
{%- for tool in tools or [] %}<tool>{{ tool | tojson }}{% endfor -%}{%- endif -%}
{%- if not (loop.first and m.role == 'system') -%}<|{{ m.role }}|>{{ m.content }}
{%- for c in m.tool_calls or [] -%}{{ '\\n' if m.content or not loop.first else '' }}
{{- '<tool_call>\\n{"name": "' ~ c.function.name ~ '", "arguments": ' }}
{{- c.function.arguments | tojson ~ '}\\n</tool_call>' -}}{%- endfor -%}{%- endif -%}
{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
TOOLS_FIRST = """
{%- if tools -%}<tools>{{ tools | tojson }}</tools>{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'system' and not loop.first -%}{{ raise_exception('late') }}{%- endif -%}
<|{{ m.role }}|>{%- if m.reasoning -%}<think>{{ m.reasoning }}</think>{%- endif -%}
{{- m.content or '' -}}
{%- for c in m.tool_calls or [] -%}
[CALL]{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}
{%- endfor -%}{%- if m.role == 'tool' -%}({{ m.tool_call_id }}){%- endif -%}
{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
TEMPLATES = {"own": None, "system-first": SYSTEM_FIRST, "tools-first": TOOLS_FIRST}


@dataclass(frozen=True)
class Rendered:
    """One request, as vLLM and as the gateway see it."""

    path: str
    body: Fields
    text: str
    prompt: Prompt


class Renderer:
    """vLLM's own rendering, without an engine."""

    def __init__(self, template: str | None) -> None:
        model = AsyncEngineArgs(model=str(FOLDER), enforce_eager=True).create_model_config()
        self.online = OnlineRenderer(
            model_config=model,
            renderer=renderer_from_config(VllmConfig(model_config=model)),
            request_logger=None,
            chat_template=template,
            chat_template_content_format="auto",
            enable_auto_tools=True,
            tool_parser="hermes",
        )
        self._joins_system = AnthropicServingMessages._should_merge_inline_system(self.online)

    async def render(self, path: str, body: Fields) -> str | None:
        """The prompt as text; None if vLLM refuses the request."""
        body = json.loads(json.dumps(body))  # vLLM changes it
        if path == CHAT:
            chat = ChatCompletionRequest.model_validate(body)
        elif path == MESSAGES:
            message = MessagesRequest.model_validate(body)
            chat = chat_request(message, joins_system=self._joins_system)
        else:
            request = OpenAIResponsesRequest.model_validate(body)
            answer = await self.online.render_responses(request)
            return self._text(answer.engine_input)
        rendered = await self.online.render_chat(chat)
        return self._text(rendered[1][0]) if isinstance(rendered, tuple) else None

    def _text(self, engine_input: Fields) -> str:
        tokens = engine_input["prompt_token_ids"]
        return str(self.online.renderer.get_tokenizer().decode(tokens))


def common(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the common beginning."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)


def difference(one: Rendered, other: Rendered) -> str:
    """What is wrong with the keys of two requests; empty if nothing is."""
    same = one.text == other.text
    keys, more = one.prompt, other.prompt
    is_equal = (list(keys.keys), keys.reply_start) == (list(more.keys), more.reply_start)
    if same != is_equal:
        return "rendered alike, keys differ" if same else "rendered differently, keys are the same"
    rendered = len(one.text[: common(one.text, other.text)].encode())
    shared = common(keys.keys, more.keys)
    if not same and shared * KEY_BYTES > rendered + 16:
        return f"{shared} keys are shared, but only {rendered} bytes"
    fewest = min(len(keys.keys), len(more.keys))
    if shared < fewest and shared * KEY_BYTES < DENSITY * rendered - SLACK:
        return f"only {shared} keys are shared, but {rendered} bytes"
    return ""


def report(*words: object) -> None:
    """Print a line."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


async def compare(seed: int, conversations: int, template: str) -> None:
    """Print each difference, and how many pairs were compared."""
    renderer, speaker = Renderer(TEMPLATES[template]), Speaker(seed)
    layout = await find_prompt_layout(renderer.online)
    report("LAYOUT", layout)
    pairs = 0
    for _ in range(conversations):
        said = speaker.conversation()
        spelled: list[Spelled] = [
            *speaker.spellings(said),
            *speaker.spellings(speaker.changed(said)),
        ]
        found = []
        for path, body in spelled:
            try:
                text = await renderer.render(path, body)
            except VLLMValidationError:  # the template refuses it
                continue
            if text is not None:
                prompt = prompt_of(parse_json(speaker.encode(body)), "m", layout, path=path)
                found.append(Rendered(path, body, text, prompt))
        for one, other in itertools.combinations(found, 2):
            pairs += 1
            if wrong := difference(one, other):
                report("WRONG", wrong, one.path, json.dumps(one.body), other.path, other.body)
    report("PAIRS", pairs)
    await compare_odd(renderer, layout, OddRequests(seed), 25 * conversations)


async def compare_odd(
    renderer: Renderer, layout: PromptLayout, requests: OddRequests, count: int
) -> None:
    """Print each prompt with several canonical texts, and each of these with several prompts."""
    texts: dict[object, Spelled] = {}
    keys: dict[object, Spelled] = {}
    for _ in range(count):
        path, body = requests.next()
        try:
            rendered = await renderer.render(path, body)
        except (VLLMValidationError, ValidationError, RefusedRequest):
            continue
        if rendered is None:
            continue
        prompt = prompt_of(parse_json(json.dumps(body).encode()), "m", layout, path=path)
        found = (tuple(prompt.keys), prompt.reply_start)
        one = texts.setdefault(rendered, (repr(found), body))
        other = keys.setdefault(found, (rendered, body))
        if one[0] != repr(found) or other[0] != rendered:
            report("WRONG", path, body, *one, *other)
    report("ODD", len(texts))


if __name__ == "__main__":
    asyncio.run(compare(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
