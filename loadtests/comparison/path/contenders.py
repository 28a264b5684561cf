"""Who takes part in the comparison of the data path, started as far as they can be had."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from rich.console import Console

from loadtests import targets
from loadtests.comparison.rest import resting
from loadtests.launch import Unavailable
from loadtests.peers import ray_llm
from loadtests.peers.litellm import litellm
from loadtests.peers.smg import smg
from loadtests.peers.vllm_router import vllm_router
from loadtests.targets import Target

Start = Callable[[], AbstractContextManager[Target]]


def contenders(engine_port: int, gateway_url: str | None, token_ms: float) -> dict[str, Start]:
    """All of them, by name; `token_ms` is for those with an engine of their own."""
    every = (ray_llm.DEFAULT, ray_llm.TOKENWISE, ray_llm.FAST, ray_llm.DIRECTLY)
    ray_variants = [variant.paced(token_ms) for variant in every]
    return {
        "router": partial(targets.router, engine_port),
        "gateway": partial(targets.gateway, gateway_url, token_ms),
        "vllm-router cache_aware": partial(vllm_router, "cache_aware", [engine_port]),
        "vllm-router round_robin": partial(vllm_router, "round_robin", [engine_port]),
        "smg cache_aware": partial(smg, "cache_aware", [engine_port]),
        "litellm": partial(litellm, engine_port),
        **{variant.name: partial(ray_llm.ray_llm, variant) for variant in ray_variants},
    }


def start(
    stack: ExitStack, wanted: Mapping[str, Start], progress: Console
) -> tuple[list[Target], dict[str, str]]:
    """Those that can be had, resting, and why the others cannot."""
    started: list[Target] = []
    missing: dict[str, str] = {}
    for name, contender in wanted.items():
        progress.print(f"starting {name}", style="dim")
        try:
            target = stack.enter_context(contender())
        except Unavailable as error:
            missing[name] = str(error)
            continue
        stack.enter_context(resting(target))
        started.append(target)
    return started, missing
