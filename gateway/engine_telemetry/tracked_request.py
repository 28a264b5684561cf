"""One request at an engine, as its report keeps account of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.kvcache.prefix import KEY_BYTES, Prompt, extend
from gateway.kvcache.prefix_index import unpacked
from gateway.kvcache.shadow_cache import CachedAnswer, CachedPrompt
from gateway.telemetry import Dispatch


@dataclass(slots=True, eq=False)
class TrackedRequest:
    """One request at an engine."""

    dispatch: Dispatch
    holding: CachedPrompt
    prompt_tokens: int
    arrived_s: float
    work_before: float
    """The integral of running requests over time, when it arrived; then, when it made a token."""
    pending_tokens: int = 0
    """Of its prompt, still to be computed."""
    scheduled_s: float | None = None
    first_token_s: float | None = None
    cached_tokens: int = 0

    @property
    def text_bytes(self) -> int:
        """What its tokens were made of, in bytes of canonical prompt; 0 where that is not known."""
        is_all_text = not (self.dispatch.is_token_ids or self.dispatch.has_media)
        return self.dispatch.prompt_bytes if is_all_text else 0

    def answers(self, completion_tokens: int, replies: Sequence[bytes]) -> list[CachedAnswer]:
        """What its answers, texts or token ids, add to the prompt in the cache."""
        dispatch, keys = self.dispatch, self.holding.keys
        size = sum(map(len, replies))
        is_held = bool(keys) or not dispatch.keys
        if dispatch.reply_start is None or dispatch.key_bytes <= 0 or not (size and is_held):
            return []
        last = keys[-1] if keys else dispatch.seed
        tokens_per_byte = completion_tokens / size
        # The first block begins in the prompt.
        start = self.prompt_tokens - len(dispatch.reply_start) * tokens_per_byte
        return [
            CachedAnswer(
                keys=extend(last, dispatch.reply_start + reply, dispatch.key_bytes),
                start_tokens=max(0.0, start),
                tokens_per_key=dispatch.key_bytes * tokens_per_byte,
            )
            for reply in replies
        ]


def dispatched_prompt(dispatch: Dispatch) -> Prompt:
    """The prompt that a dispatch speaks of.

    Raises:
        ValueError: its keys are none.
    """
    return Prompt(
        keys=unpacked(dispatch.keys),
        size=dispatch.prompt_bytes,
        is_token_ids=dispatch.is_token_ids,
        key_bytes=dispatch.key_bytes or KEY_BYTES,
    )
