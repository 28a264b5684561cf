"""vLLM's engine client, observed and guarded."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import cache
from typing import Any, TypeVar

from vllm.inputs import TokensPrompt
from vllm.outputs import PoolingRequestOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine import PauseMode
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import RequestOutputCollector

from deployments.engines.adapters import AdapterCache
from deployments.engines.call import current_call
from deployments.engines.vllm.cache_guard import CacheGuard
from deployments.engines.vllm.client_errors import BY_SHAPE, client_error
from deployments.engines.vllm.fair_rendering import FairRendering
from deployments.engines.vllm.grammars import GrammarGuard
from deployments.engines.vllm.lora import (
    while_adapter_loaded,
)
from deployments.engines.vllm.observer import FirstToken, RequestObserver
from deployments.engines.vllm.sequence_gate import SequenceGate
from deployments.engines.vllm.version import SUPPORTED

logger = logging.getLogger(__name__)
_O = TypeVar("_O")


class ObservedLLM(AsyncLLM):
    """vLLM's engine client, observed: every request, output and emptied cache."""

    _observer: RequestObserver | None = None
    _adapters: AdapterCache | None = None
    _grammars: GrammarGuard | None = None
    _caches: CacheGuard
    _gate: SequenceGate | None = None

    def guard_caches(self, caches: CacheGuard) -> None:
        """Keep the scopes of requests apart from here on."""
        self._caches = caches
        caches.attach(self)

    @property
    def has_private_caches(self) -> bool:
        """Whether its caches keep the scopes of requests apart."""
        return self._caches.has_private_caches

    @property
    def held_sequences(self) -> int:
        """Sequences that wait before vLLM's own queue."""
        return self._gate.waiting if self._gate else 0

    def keep_slots_free(self) -> None:
        """Leave some slots to small requests, whatever large ones ask for."""
        slots = self.vllm_config.scheduler_config.max_num_seqs
        ranks = self.vllm_config.parallel_config.data_parallel_size
        self._gate = SequenceGate(self.engine_core, slots * ranks)

    def render_fairly(self) -> None:
        """Let no request's prompts keep those of others waiting to be tokenized."""
        FairRendering(self.renderer._executor)  # noqa: SLF001 - nowhere else

    async def warm_up(self) -> None:
        """Ask once for what is compiled when it is first asked for, and would keep all waiting.

        These are the kernels of vLLM 0.32 that count the ranks of log-probabilities.
        """
        if not self.model_config.max_logprobs:
            return
        wanted = (
            SamplingParams(max_tokens=1, temperature=1.0, logprobs=1),
            SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1),
        )
        for number, params in enumerate(wanted):
            prompt = TokensPrompt(prompt_token_ids=[0, 0])
            try:
                async for _ in super().generate(prompt, params, f"first-logprobs-{number}"):
                    pass
            except EngineDeadError:
                raise
            except Exception:
                logger.warning("this model gives no such log-probabilities", exc_info=True)

    async def guard_grammars(self, timeout_s: float) -> None:
        """Refuse grammars that take too long, and settle which backend compiles the others.

        vLLM 0.32 lets the first structured output that an engine ever gets decide that, and the
        other backends' are then compiled by the wrong one.
        """
        params = SamplingParams(
            max_tokens=1, structured_outputs=StructuredOutputsParams(json_object=True)
        )
        prompt = TokensPrompt(prompt_token_ids=[0])
        try:
            async for _ in super().generate(prompt, params, "first-structured-output"):
                pass
        except EngineDeadError:
            raise
        except Exception:
            logger.warning("this model gives no structured outputs", exc_info=True)
            return
        self._grammars = GrammarGuard(self.vllm_config, timeout_s)
        if not current_platform.is_cpu():  # there, memory is short
            self._grammars.start()

    async def stop_guards(self) -> None:
        """Stop what runs beside the engine."""
        if self._grammars is not None:
            await self._grammars.stop()

    async def add_request(
        self, request_id: str, prompt: object, params: object, *args: object, **options: object
    ) -> RequestOutputCollector:
        """Hand a request over to the engine core.

        What fails here is vLLM's validation of the request; vLLM 0.32 would answer 500.
        """
        self._caches.check(getattr(params, "extra_args", None))
        if self._grammars is not None:
            await self._grammars.check(getattr(params, "structured_outputs", None))
        try:
            queue = await super().add_request(request_id, prompt, params, *args, **options)
        except BY_SHAPE as error:
            raise client_error(error) from error
        if (call := current_call()) is not None:
            call.record_accepted()
        return queue

    def attach(self, observer: RequestObserver, adapters: AdapterCache) -> None:
        """Observe all requests; called before the first one, and after vLLM has started."""
        self._observer, self._adapters = observer, adapters

    def generate(
        self, prompt: object, sampling_params: SamplingParams, request_id: str, **options: object
    ) -> AsyncGenerator[RequestOutput, None]:
        """Generate answers, once the request's grammar has passed."""
        outputs = self._generate(prompt, sampling_params, request_id, **options)
        spec = sampling_params.structured_outputs
        if self._grammars is None or not self._grammars.needs_trial(spec):
            return outputs
        return self._after_trial(self._grammars, spec, outputs)

    def _generate(
        self, prompt: object, sampling_params: SamplingParams, request_id: str, **options: object
    ) -> AsyncGenerator[RequestOutput, None]:
        self._prioritize(options)
        outputs: AsyncGenerator[RequestOutput, None] = self._with_adapter(
            super().generate(prompt, sampling_params, request_id, **options), options
        )
        if self._observer is None:
            return outputs
        is_delta = sampling_params.output_kind == RequestOutputKind.DELTA
        return self._observer.generate(
            outputs, prompt, request_id, is_delta=is_delta, sequences=sampling_params.n
        )

    def encode(
        self, prompt: object, pooling_params: PoolingParams, request_id: str, **options: object
    ) -> AsyncGenerator[PoolingRequestOutput, None]:
        """Compute a result that is not made of tokens."""
        self._prioritize(options)
        outputs: AsyncGenerator[PoolingRequestOutput, None] = self._with_adapter(
            super().encode(prompt, pooling_params, request_id, **options), options
        )
        return outputs if self._observer is None else self._observer.encode(outputs, prompt)

    async def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Empty the cache, and report it."""
        is_done: bool = await super().reset_prefix_cache(reset_running_requests, reset_connector)
        self._record_reset(is_emptied=is_done)
        return is_done

    async def pause_generation(
        self, *, mode: PauseMode = "abort", clear_cache: bool = True
    ) -> None:
        """Pause, and report whether that has emptied the cache."""
        await super().pause_generation(mode=mode, clear_cache=clear_cache)
        self._record_reset(is_emptied=clear_cache)

    async def sleep(self, level: int = 1, mode: PauseMode = "abort") -> None:
        """Sleep, and report whether that has emptied the cache."""
        await super().sleep(level, mode)
        self._record_reset(is_emptied=level > 0)

    def first_token(self, request_id: str) -> FirstToken | None:
        """The first token of a request without output so far; None if it has none yet.

        vLLM 0.32 gives a request without streaming its output only at the end. Its processor knows
        earlier, in attributes that are documented nowhere.
        """
        return first_token_of(getattr(self, "output_processor", None), request_id)

    @staticmethod
    async def _after_trial(
        grammars: GrammarGuard,
        spec: StructuredOutputsParams | None,
        outputs: AsyncGenerator[_O, None],
    ) -> AsyncGenerator[_O, None]:
        """Outputs of a request once its grammar has passed.

        The engine does not have the request before: it does not stand still meanwhile.
        """
        async with aclosing(outputs):
            await grammars.check(spec)
            async for output in outputs:
                yield output

    def _with_adapter(
        self, outputs: AsyncGenerator[_O, None], options: Mapping[str, Any]
    ) -> AsyncGenerator[_O, None]:
        lora = options.get("lora_request")
        if self._adapters is None or lora is None:
            return outputs
        return while_adapter_loaded(self._adapters, lora.lora_name, outputs)

    def _record_reset(self, *, is_emptied: bool) -> None:
        if self._observer is not None and is_emptied:
            self._observer.record_cache_reset()

    def _prioritize(self, options: dict[str, object]) -> None:
        # The gateway's priority replaces the client's, which could put itself before all others.
        if self._observer is not None and self._observer.priority:
            options["priority"] = self._observer.priority


def first_token_of(processor: Any, request_id: str) -> FirstToken | None:  # noqa: ANN401 - vLLM's
    """The first token of a request in vLLM's `OutputProcessor`; None if it has none yet.

    None, and a warning, also if this version of vLLM keeps its requests in another way.
    """
    try:
        for internal_id in processor.external_req_ids.get(request_id, ()):
            state = processor.request_states.get(internal_id)
            if state is not None and not state.is_prefilling:
                return FirstToken(state.num_cached_tokens, state.stats)
    except (AttributeError, TypeError) as error:
        _warn_without_request_states(repr(error))
    return None


@cache  # called after every step: one warning per process is enough
def _warn_without_request_states(error: str) -> None:
    logger.warning(
        "vLLM's OutputProcessor has changed (%s; this gateway supports vLLM %s): routers learn of"
        " requests without streaming only at their end",
        *(error, SUPPORTED),
    )
