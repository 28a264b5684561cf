"""Tokens that a request is expected to take, before an engine has seen it."""

from typing import NamedTuple

from gateway.kvcache.prefix import TOKEN_ID_BYTES
from gateway.request.routes import CHAT, COMPLETIONS, FORM_ROUTES, PROMPT_ROUTES
from gateway.routing.scheduler import Scheduler, prompt_tokens
from gateway.routing.target import Target

ANSWERED = frozenset({CHAT, COMPLETIONS, "/v1/responses", "/v1/messages", *FORM_ROUTES})
"""Routes whose answers are made of tokens."""
RUN = PROMPT_ROUTES | frozenset(FORM_ROUTES)
"""Routes that run the model; others count as requests only."""


class ExpectedTokens(NamedTuple):
    """Tokens of a request; all its prompts and answers together."""

    prompt: int
    cached: int
    """Of the prompt, those in the cache of the replica that holds most of it."""
    answer: int
    most_answer: int
    """The longest answers that it may get."""


NO_TOKENS = ExpectedTokens(0, 0, 0, 0)


def expected_tokens(target: Target, scheduler: Scheduler) -> ExpectedTokens:
    """Tokens that a request is expected to take; O(keys of the prompt)."""
    request, prompt = target.request, target.prompt
    if request.path not in RUN:
        return NO_TOKENS
    head, costs = request.head, scheduler.cost_model
    per_byte = 1 / TOKEN_ID_BYTES if prompt.is_token_ids else costs.estimates.tokens_per_byte
    matches = scheduler.replicas.prefix_index.match(prompt.keys) if prompt.keys else {}
    tokens = round(prompt_tokens(prompt, matches, per_byte))
    if head.prompts > 1:
        tokens = max(tokens, round(head.prompts_bytes * costs.estimates.tokens_per_byte))
    cached = max((match.tokens for match in matches.values()), default=0)
    if request.path not in ANSWERED:
        return ExpectedTokens(tokens, cached, 0, 0)
    longest = (target.model.max_model_len or 0) - tokens
    if head.max_tokens is not None:
        longest = min(longest, head.max_tokens) if longest > 0 else head.max_tokens
    answer = round(costs.output_tokens(head.max_tokens))
    return ExpectedTokens(
        tokens, cached, head.sequences * answer, head.sequences * max(longest, answer)
    )
