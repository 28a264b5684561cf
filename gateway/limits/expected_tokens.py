"""Tokens that a request is expected to take, before an engine has seen it."""

from gateway.config.route_paths import FORM_ROUTES
from gateway.kvcache.prefix import TOKEN_ID_BYTES, Prompt
from gateway.request.head import RequestHead
from gateway.request.routes import CHAT, COMPLETIONS, PROMPT_ROUTES
from gateway.routing.scheduler import Scheduler, prompt_tokens
from gateway.routing.target import Target

ANSWERED = frozenset({CHAT, COMPLETIONS, "/v1/responses", "/v1/messages", *FORM_ROUTES})
"""Routes whose answers are made of tokens."""
RUN = PROMPT_ROUTES | frozenset(FORM_ROUTES)
"""Routes that run the model; others count as requests only."""
UNREAD_BYTES = 4096
"""Bytes of a body that its prompt need not account for."""
JSON_FACTOR = 4
"""Bytes of JSON for a byte of its text, where much is escaped, in many fields, or not rendered."""
NO_TEXTS = frozenset({"data", "images", "prompt_embeds"})
"""Fields of a prompt that are no texts."""


def expected_tokens(target: Target, scheduler: Scheduler) -> tuple[int, int, int]:
    """Tokens of a request's prompts, those of them that are cached, and those of its answers.

    Cached are those of the replica that holds most. O(keys of the prompt).
    """
    request, prompt = target.request, target.prompt
    if request.path not in RUN:
        return 0, 0, 0
    head, costs = request.head, scheduler.cost_model.estimates
    tokens, cached = 0, 0
    if prompt.keys and (matches := scheduler.replicas.prefix_index.match(prompt.keys)):
        per_byte = 1 / TOKEN_ID_BYTES if prompt.is_token_ids else costs.tokens_per_byte
        tokens = round(prompt_tokens(prompt, matches, per_byte))
        cached = max(match.tokens for match in matches.values())
    else:
        divisor = TOKEN_ID_BYTES if prompt.is_token_ids else 1 / costs.tokens_per_byte
        tokens = round(prompt.size / divisor)
    if head.prompts > 1:
        tokens = max(tokens, round(head.prompts_bytes * costs.tokens_per_byte))
    if head.size > UNREAD_BYTES:
        tokens = max(tokens, round(_least_bytes(head, prompt) * costs.tokens_per_byte))
    if request.path not in ANSWERED:
        return tokens, cached, 0
    answer = costs.output_tokens
    if head.max_tokens is not None and head.max_tokens < answer:
        answer = head.max_tokens
    return tokens, cached, head.sequences * round(answer)


def _least_bytes(head: RequestHead, prompt: Prompt) -> int:
    """Least bytes of text that a prompt is taken to have, whatever of it has been read.

    Only texts from which keys are made have been read: there may be others in arguments of tools,
    in documents or in pairs to score. 0 where all has been read, or the rest may be media.
    """
    if prompt.has_media or head.size <= UNREAD_BYTES + JSON_FACTOR * prompt.size:
        return 0
    texts = (bytes(raw) for name, raw in head.fields.prompts.items() if name not in NO_TEXTS)
    return sum(len(text) for text in texts if b'"data:' not in text) // JSON_FACTOR


def most_answer_tokens(target: Target, prompt: int, expected: int) -> int:
    """The most tokens that a request's answers may have; `prompt`: those of its prompts.

    `expected`: those that its answers are expected to have.
    """
    if not expected:
        return 0
    head = target.request.head
    longest = max(0, (target.model.max_model_len or 0) - prompt // head.prompts)
    if head.max_tokens is not None:
        longest = min(longest, head.max_tokens) if longest else head.max_tokens
    return max(head.sequences * longest, expected)
