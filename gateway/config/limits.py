"""Limits of what one request may ask of a model's engines, for fields whose work grows with them.

No honest client meets the defaults. Each guards against work that engines do for all requests in
one place, such as tokenizing a field on their event loop or compiling a grammar, which cannot be
cancelled.
"""

from pydantic import Field

from gateway.config.strict import Strict


class Limits(Strict):
    """What one request to the model may ask for; a request that asks for more gets a 400."""

    parameter_bytes: int = Field(default=1 << 20, ge=1)
    """Bytes of the JSON of all fields together, except the prompt and the tools. Fields that the
    gateway does not know count too."""
    n: int = Field(default=128, ge=1)
    """Answers to each prompt: `n` and `best_of`. All run at the same time: a limit well below the
    slots of an engine leaves some to others."""
    prompts: int = Field(default=2048, ge=1)
    """Prompts of a request: texts to complete or embed, documents to rank, conversations."""
    messages: int = Field(default=32_768, ge=1)
    """Messages of a conversation, or items of a response's `input`, with all parts of their
    contents."""
    prompt_chars_per_token: int = Field(default=64, ge=1)
    """Characters of a prompt's JSON for each token of the model's context. A longer prompt cannot
    fit, whatever its tokens are. It is rejected before it is tokenized, even if the engine would
    truncate it. `/tokenize` and `/detokenize` take four times as much, and all routes take at
    least 1 MiB."""
    words: int = Field(default=4096, ge=1)
    """Items of `bad_words`, and of `stop` and `stop_sequences`."""
    words_bytes: int = Field(default=65_536, ge=1)
    """Bytes of the JSON of each of these fields."""
    token_ids: int = Field(default=131_072, ge=1)
    """Items of `logit_bias`, `allowed_token_ids`, `stop_token_ids` and `logprob_token_ids`."""
    logprobs: int = Field(default=1000, ge=0)
    """Tokens whose probabilities are returned at each position: `logprobs`, `top_logprobs` and
    `prompt_logprobs`. Engines have a lower limit of their own."""
    choices: int = Field(default=5000, ge=1)
    """Items of a structured output's `choice`, or of an `enum` in its schema."""
    choices_bytes: int = Field(default=65_536, ge=1)
    """Bytes of the JSON of such a list."""
    regex_bytes: int = Field(default=16_384, ge=1)
    """Bytes of a structured output's `regex`, or of a `pattern` in its schema."""
    grammar_bytes: int = Field(default=65_536, ge=1)
    """Bytes of a structured output's `grammar`."""
    schema_bytes: int = Field(default=262_144, ge=1)
    """Bytes of the JSON schema of a structured output, or of a tool whose arguments are to follow
    its schema."""
    schema_values: int = Field(default=10_000, ge=1)
    """Values in such a schema: objects, lists, texts and numbers."""
    schema_depth: int = Field(default=80, ge=1)
    """Levels of such a schema, with those of the field around it."""
    tools: int = Field(default=1024, ge=1)
    """Tools of a request."""
    tools_bytes: int = Field(default=4 << 20, ge=1)
    """Bytes of the JSON of all tools."""
    tools_values: int = Field(default=50_000, ge=1)
    """Values of all tools together whose arguments are to follow their schemas."""
