"""One request at an engine, as the engine's tracker follows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.engine_telemetry.usage_meter import CallUsage
from gateway.kvcache.prefix import KEY_BYTES, Prompt, extend
from gateway.kvcache.shadow_cache import CachedAnswer, CachedPrompt
from gateway.telemetry.dispatch import Dispatch
from gateway.telemetry.update import unpack_keys


@dataclass(slots=True, eq=False)
class TrackedRequest:
    """One request at an engine."""

    dispatch: Dispatch
    cached_prompt: CachedPrompt
    """Its prompt in the shadow of the engine's cache."""
    prompt_tokens: int
    arrived_s: float
    request_s_before: float
    """Time integral of the number of running requests: until it arrived, later until its first
    token."""
    pending_tokens: int = 0
    """Prompt tokens still to be computed."""
    scheduled_s: float | None = None
    first_token_s: float | None = None
    cached_tokens: int = 0
    sequences: int = 1
    """Answers that it gives."""
    call: CallUsage | None = None
    """Call whose part it is, if that is anybody's."""
    is_same_prompt: bool = False
    """Another part of the call has the same prompt."""
    prefill_busy_s: float = 0.0
    """Its share of the engine's time until its first token."""
    decode_s_before: float = 0.0
    """`DeviceTime.decode_s` at its first token."""

    @property
    def priority(self) -> int:
        """Priority at the engine, that of its call; lower values start sooner."""
        return self.dispatch.priority if self.call is None else self.call.dispatch.priority

    @property
    def further_sequences(self) -> int:
        """Its sequences but the first one of the request that the router sent."""
        return self.sequences - bool(self.dispatch.id)

    @property
    def text_bytes(self) -> int:
        """Bytes of canonical prompt that became its tokens; 0 where that is unknown."""
        is_all_text = not (self.dispatch.is_token_ids or self.dispatch.has_media)
        return self.dispatch.prompt_bytes if is_all_text else 0

    def answers(self, completion_tokens: int, replies: Sequence[bytes]) -> list[CachedAnswer]:
        """Return the cache entries that its answers (texts or token ids) append to the prompt."""
        dispatch, keys = self.dispatch, self.cached_prompt.keys
        size = sum(map(len, replies))
        has_prompt = bool(keys) or not dispatch.keys
        if dispatch.reply_start is None or dispatch.key_bytes <= 0 or not (size and has_prompt):
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
    """Return the prompt that a dispatch describes.

    Raises:
        ValueError: its keys are invalid.
    """
    return Prompt(
        keys=unpack_keys(dispatch.keys),
        size=dispatch.prompt_bytes,
        is_token_ids=dispatch.is_token_ids,
        key_bytes=dispatch.key_bytes or KEY_BYTES,
    )
