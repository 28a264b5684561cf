"""Keeps requests of different scopes apart in all caches of one vLLM engine.

What is made up for, of vLLM 0.32:

- the salt of the prefix cache is whatever the client's body says: here it is derived from the scope
  that the router has verified, with the client's own as a part of it. It is set where every route
  and every form of prompt becomes a request to the engine core, in the context of its own HTTP
  request: later, a request may be handed on in that of another one (`SequenceGate`);
- media are cached by their content, or by a `uuid` that the client chooses, under which another
  client's picture may be found: here every such name has the scope as a part of it;
- `kv_transfer_params` and `ec_transfer_params` make an engine read what the client names from
  another engine, whoever it belongs to: they are refused where caches are private.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from vllm.exceptions import VLLMValidationError

from deployments.engines.call import current_call
from gateway.config.cache_isolation import shared_caches
from gateway.errors.startup import ConfigError
from gateway.identity.cache_scope import CacheSalts

MODALITIES = ("image", "audio", "video")
"""Media of which vLLM's hash has only the options of its own kind; of others, all of them."""
TRANSFERS = ("kv_transfer_params", "ec_transfer_params")
"""Sampling parameters that name what another engine holds."""
_P = ParamSpec("_P")
_R = TypeVar("_R")


class CacheGuard:
    """Keeps the scopes of an engine's requests apart, by `salts`.

    `has_private_caches`: whether that is possible; otherwise only requests are accepted whose
    caches are shared by all.
    """

    def __init__(self, salts: CacheSalts, *, has_private_caches: bool = True) -> None:
        self._salts = salts
        self.has_private_caches = has_private_caches

    def attach(self, llm: Any) -> None:  # noqa: ANN401 - vLLM's engine client
        """Salt all requests from here on."""
        processor = llm.input_processor
        processor.process_inputs = self.salted(processor.process_inputs)
        processor.process_inputs_async = self.salted_async(processor.process_inputs_async)
        if llm.model_config.is_multimodal_model:
            renderer = llm.renderer
            for name in ("_process_multimodal", "_process_multimodal_async"):
                setattr(renderer, name, self.with_scoped_media(getattr(renderer, name)))
            # Pooling routes render in its threads, which must know for which request.
            executor = renderer._executor  # noqa: SLF001
            executor.submit = in_caller_s_context(executor.submit)

    def check(self, extra_args: Mapping[str, object] | None) -> None:
        """Refuse what the caches of the current request's scope do not allow.

        `extra_args`: those of its sampling parameters.

        Raises:
            VLLMValidationError: says what and why.
        """
        if not _current_scope():
            return
        if not self.has_private_caches:
            reason = "the engines of this model share their caches among all projects"
            raise VLLMValidationError(reason, parameter="model")
        for name in TRANSFERS:
            if (extra_args or {}).get(name):
                reason = "what other engines hold is not for clients with private caches"
                raise VLLMValidationError(reason, parameter=name)

    def salted(self, process: Callable[_P, Any]) -> Callable[_P, Any]:
        """`process`, which makes a request to the engine core, with the salt of its scope."""

        def process_salted(*args: _P.args, **options: _P.kwargs) -> Any:  # noqa: ANN401 - vLLM's
            return self._with_salt(process(*args, **options))

        return process_salted

    def salted_async(self, process: Callable[_P, Awaitable[Any]]) -> Callable[_P, Awaitable[Any]]:
        """The same for a `process` that has to be awaited."""

        async def process_salted(*args: _P.args, **options: _P.kwargs) -> Any:  # noqa: ANN401
            return self._with_salt(await process(*args, **options))

        return process_salted

    def _with_salt(self, request: Any) -> Any:  # noqa: ANN401 - an EngineCoreRequest
        scope, own = _current_scope(), request.cache_salt
        if scope or (own and scope is not None):
            request.cache_salt = self._salts.salt(scope, own or "")
        return request

    def with_scoped_media(self, process: Callable[..., _R]) -> Callable[..., _R]:
        """`process`, which looks media up in vLLM's cache, with the scope in their names.

        vLLM makes the name of `media_io_kwargs`, too, and needs them for nothing else there.
        """

        def process_scoped(*args: Any, **options: Any) -> _R:  # noqa: ANN401 - vLLM's
            if scope := _current_scope():
                found = options.get("media_io_kwargs") or {}
                mark = {"cache_scope": self._salts.salt(scope)}
                kinds: Iterable[str] = (*MODALITIES, *found)
                options["media_io_kwargs"] = {
                    kind: {**found.get(kind, {}), **mark} for kind in kinds
                }
            return process(*args, **options)

        return process_scoped


def check_isolation(config: Any) -> None:  # noqa: ANN401 - vLLM's VllmConfig
    """Raise if requests of an engine with this configuration may share caches across scopes.

    Raises:
        ConfigError: names the argument.
    """
    transfer, speculation = config.kv_transfer_config, config.speculative_config
    found: dict[str, Any] = {}
    if transfer is not None:
        found["kv_transfer_config"] = {
            "kv_connector": transfer.kv_connector,
            "kv_connector_module_path": transfer.kv_connector_module_path,
            "kv_connector_extra_config": transfer.kv_connector_extra_config,
        }
    if speculation is not None:
        remembered = speculation.suffix_decoding_max_cached_requests
        found["speculative_config"] = {
            "method": speculation.method,
            "suffix_decoding_max_cached_requests": remembered,
        }
    for error in shared_caches(found):
        raise ConfigError(f"engine_args.{error.path[0]}: {error.message}")


def in_caller_s_context(submit: Callable[..., _R]) -> Callable[..., _R]:
    """`submit` of an executor, for functions that run in the context of their caller."""

    def submit_in_context(function: Callable[_P, object], *args: Any, **options: Any) -> _R:  # noqa: ANN401
        return submit(copy_context().run, function, *args, **options)

    return submit_in_context


def _current_scope() -> str | None:
    call = current_call()
    return None if call is None else call.cache_scope
