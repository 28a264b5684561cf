"""Fields that each route's engine code reads; it ignores all others, and so do prefix keys.

Source: the request classes of vLLM 0.32; `tests/contract` compares.
"""

from collections.abc import Mapping

import msgspec

from gateway.request.head import SEED_FIELDS, PromptParts
from gateway.request.lax_json import read_bool
from gateway.request.raw_fields import ABSENT

TEXT_FIELDS = ("messages", "system", "prompt", "input", "instructions", "tools")
"""Fields that hold what is said."""
ROUTE_FIELDS: Mapping[str, frozenset[str]] = {
    "/v1/chat/completions": frozenset(
        {
            *("messages", "tools", "tool_choice", "cache_salt", "documents", "chat_template"),
            *("chat_template_kwargs", "reasoning_effort", "add_special_tokens"),
            *("truncate_prompt_tokens", "truncation_side", "mm_processor_kwargs"),
            *("media_io_kwargs", "kv_transfer_params", "continue_final_message"),
            "add_generation_prompt",
        }
    ),
    "/v1/completions": frozenset(
        {
            *("prompt", "suffix", "prompt_embeds", "cache_salt", "add_special_tokens"),
            *("truncate_prompt_tokens", "truncation_side", "kv_transfer_params"),
        }
    ),
    "/v1/messages": frozenset(
        {
            *("messages", "system", "tools", "tool_choice", "cache_salt", "thinking"),
            *("output_config", "chat_template_kwargs", "kv_transfer_params"),
        }
    ),
    "/v1/responses": frozenset(
        {
            *("input", "instructions", "tools", "tool_choice", "cache_salt", "reasoning"),
            *("previous_response_id", "truncation", "chat_template_kwargs"),
            *("mm_processor_kwargs", "media_io_kwargs", "kv_transfer_params"),
        }
    ),
}
_SPECIAL_TOKENS = "add_special_tokens"
_DEFAULTS = {"/v1/chat/completions": False, "/v1/completions": True}
"""Values of `add_special_tokens` that say nothing."""
_BOOLEANS = (msgspec.Raw(b"false"), msgspec.Raw(b"true"))


def fields_read(parts: PromptParts, path: str) -> PromptParts:
    """The parts of a prompt that a route reads; all of them where that is not known."""
    names = ROUTE_FIELDS.get(path)
    if names is None:
        return parts
    changes: dict[str, object] = {
        name: ABSENT
        for name in TEXT_FIELDS
        if name not in names and getattr(parts, name) is not ABSENT
    }
    if parts.seeds:
        pairs = zip(SEED_FIELDS, parts.seeds, strict=True)
        seeds = {name: raw if name in names else ABSENT for name, raw in pairs}
        if (special := seeds[_SPECIAL_TOKENS]) is not ABSENT:
            value = read_bool(special)
            seeds[_SPECIAL_TOKENS] = ABSENT if value == _DEFAULTS.get(path) else _BOOLEANS[value]
        changes["seeds"] = tuple(seeds.values())
    if parts.options:
        changes["options"] = tuple(pair for pair in parts.options if pair[0] in names)
    return msgspec.structs.replace(parts, **changes) if changes else parts
