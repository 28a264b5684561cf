"""Fields of a JSON body that the gateway reads, as they were written: nothing in them is parsed."""

from collections.abc import Sequence
from operator import attrgetter

import msgspec

ABSENT = msgspec.Raw()
"""Value of a field that the request does not have."""


class RawFields(msgspec.Struct, frozen=True):
    """All fields but the model as they were written: the engine rejects those of a wrong type."""

    model: str | None = None
    messages: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    cache_salt: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    chat_template: msgspec.Raw = ABSENT
    chat_template_kwargs: msgspec.Raw = ABSENT
    reasoning_effort: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    previous_response_id: msgspec.Raw = ABSENT
    conversation: msgspec.Raw = ABSENT
    store: msgspec.Raw = ABSENT
    background: msgspec.Raw = ABSENT
    truncation: msgspec.Raw = ABSENT
    truncation_side: msgspec.Raw = ABSENT
    media_io_kwargs: msgspec.Raw = ABSENT
    suffix: msgspec.Raw = ABSENT
    kv_transfer_params: msgspec.Raw = ABSENT
    continue_final_message: msgspec.Raw = ABSENT
    add_generation_prompt: msgspec.Raw = ABSENT
    add_special_tokens: msgspec.Raw = ABSENT
    truncate_prompt_tokens: msgspec.Raw = ABSENT
    mm_processor_kwargs: msgspec.Raw = ABSENT
    max_tokens: msgspec.Raw = ABSENT
    max_completion_tokens: msgspec.Raw = ABSENT
    max_output_tokens: msgspec.Raw = ABSENT
    stream: msgspec.Raw = ABSENT
    user: msgspec.Raw = ABSENT
    safety_identifier: msgspec.Raw = ABSENT
    prompt_cache_key: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    n: msgspec.Raw = ABSENT
    best_of: msgspec.Raw = ABSENT
    # other forms of prompts
    prompt_embeds: msgspec.Raw = ABSENT
    previous_input_messages: msgspec.Raw = ABSENT
    tokens: msgspec.Raw = ABSENT
    query: msgspec.Raw = ABSENT
    queries: msgspec.Raw = ABSENT
    items: msgspec.Raw = ABSENT
    data_1: msgspec.Raw = ABSENT
    data_2: msgspec.Raw = ABSENT
    text_1: msgspec.Raw = ABSENT
    text_2: msgspec.Raw = ABSENT
    texts: msgspec.Raw = ABSENT
    inputs: msgspec.Raw = ABSENT
    images: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT
    prediction: msgspec.Raw = ABSENT
    # what an engine's work grows with
    stop: msgspec.Raw = ABSENT
    stop_sequences: msgspec.Raw = ABSENT
    bad_words: msgspec.Raw = ABSENT
    logit_bias: msgspec.Raw = ABSENT
    allowed_token_ids: msgspec.Raw = ABSENT
    stop_token_ids: msgspec.Raw = ABSENT
    logprob_token_ids: msgspec.Raw = ABSENT
    logprobs: msgspec.Raw = ABSENT
    top_logprobs: msgspec.Raw = ABSENT
    prompt_logprobs: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    output_format: msgspec.Raw = ABSENT
    output_config: msgspec.Raw = ABSENT
    structured_outputs: msgspec.Raw = ABSENT
    guided_json: msgspec.Raw = ABSENT
    guided_regex: msgspec.Raw = ABSENT
    guided_choice: msgspec.Raw = ABSENT
    guided_grammar: msgspec.Raw = ABSENT

    @property
    def prompts(self) -> dict[str, msgspec.Raw]:
        """The fields that the prompt is made of, by name."""
        return self._present(PROMPT_FIELDS)

    @property
    def is_plain(self) -> bool:
        """Whether the request has no field with a limit of its own, but for its prompt."""
        return _limited_of(self) == _NO_LIMITED

    def largest_parameter(self, least_bytes: int) -> str | None:
        """Name of a field of so many bytes that is neither prompt nor tools; None without one."""
        names = [name for name in self.__struct_fields__ if name not in {"model", "tools"}]
        sizes = {name: len(raw) for name, raw in self._present(names).items()}
        large = (name for name, size in sizes.items() if size >= least_bytes)
        return next((name for name in large if name not in PROMPT_FIELDS), None)

    def _present(self, names: Sequence[str]) -> dict[str, msgspec.Raw]:
        return {name: raw for name in names if (raw := getattr(self, name)) is not ABSENT}


LIMITED_FIELDS: Sequence[str] = (
    *("n", "best_of", "tools", "stop", "stop_sequences", "bad_words", "logit_bias"),
    *("allowed_token_ids", "stop_token_ids", "logprob_token_ids", "logprobs", "top_logprobs"),
    *("prompt_logprobs", "response_format", "text", "output_format", "output_config"),
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
)
"""Fields that have limits of their own."""
_limited_of = attrgetter(*LIMITED_FIELDS)
_NO_LIMITED = (ABSENT,) * len(LIMITED_FIELDS)
PROMPT_FIELDS: Sequence[str] = (
    *("messages", "system", "prompt", "input", "instructions", "documents", "prompt_embeds"),
    *("previous_input_messages", "tokens", "query", "queries", "items", "data_1", "data_2"),
    *("text_1", "text_2", "texts", "inputs", "images", "data", "prediction"),
)
"""Names of the fields that a prompt is made of, on any route; tools are apart."""
