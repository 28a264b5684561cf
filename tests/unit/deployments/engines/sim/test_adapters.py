"""Adapters of the simulated engine, and the other names that clients use for it."""

from typing import Any

import pytest

from deployments.engines.sim.engine import SimulatedEngine
from gateway.config.serving_options import Adapter
from gateway.config.sim import SimEntry, Simulation
from tests.unit.deployments.engines.sim.simulated import (
    CHAT,
    COMPLETIONS,
    PLAIN_STEPS,
    Exchange,
    FakeTime,
    chat,
    completion,
    dispatched,
)

LOAD_S = 10


def engine_with(most: int | None = None, time: FakeTime | None = None) -> SimulatedEngine:
    """An engine of the model `m` with the adapters `a` and `b`."""
    entry = SimEntry(
        name="m",
        engine="sim",
        adapters=[Adapter(name=name, source="anything") for name in "ab"],
        max_loaded_adapters=most,
        simulation=Simulation.model_validate(
            {**PLAIN_STEPS, "instant": time is None, "adapter_load_s": LOAD_S, "block_size": 2}
        ),
    )
    return SimulatedEngine(entry, time.clock if time else None)


def cached_tokens(exchange: Exchange) -> int:
    """Cached prompt tokens, by the usage in the response."""
    return int(exchange.json["usage"]["prompt_tokens_details"]["cached_tokens"])


async def test_an_adapter_answers_under_its_own_name() -> None:
    """To clients it is a model like any other."""
    engine = engine_with()
    body = chat(max_tokens=1) | {"model": "a"}
    listing = (await Exchange(engine, "/v1/models", method="GET").finish()).json["data"]

    assert (await Exchange(engine, CHAT, body).finish()).json["model"] == "a"
    assert [(card["id"], card.get("parent")) for card in listing] == [
        ("m", None),
        ("a", "m"),
        ("b", "m"),
    ]
    assert engine.facts.adapters == ("a", "b")


@pytest.mark.parametrize("target", ["m", "b"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_reply_has_the_clients_name(target: str, is_stream: bool) -> None:
    """The response shows the name that the client used, whatever the router resolved it to."""
    body = chat(max_tokens=2, stream=is_stream) | {"model": "gpt-4o"}
    headers = [dispatched(1, model=target)]
    exchange = await Exchange(engine_with(), CHAT, body, headers=headers).finish()
    replies: list[dict[str, Any]] = exchange.chunks if is_stream else [exchange.json]

    assert {reply["model"] for reply in replies} == {"gpt-4o"}


@pytest.mark.parametrize("headers", [[], [dispatched(1)], [dispatched(1, model="c")]])
async def test_only_a_router_may_use_other_names(headers: list[tuple[bytes, bytes]]) -> None:
    """Without a dispatch only the engine's own names are accepted."""
    body = chat() | {"model": "gpt-4o"}
    exchange = await Exchange(engine_with(), CHAT, body, headers=headers).finish()

    assert exchange.status == 404
    assert "gpt-4o" in exchange.json["error"]["message"]


async def test_a_tokenizer_answers_to_every_name() -> None:
    """A resumed stream is tokenized under the client's name."""
    body = {"model": "gpt-4o", "prompt": "Hello"}
    headers = [dispatched(1, model="a")]

    answered = await Exchange(engine_with(), "/tokenize", body, headers=headers).finish()
    refused = await Exchange(engine_with(), "/tokenize", body).finish()

    assert (answered.status, refused.status) == (200, 404)


async def test_an_adapter_is_loaded_when_it_is_first_used() -> None:
    """The first request waits for the load; the next does not, until the adapter is evicted."""
    time = FakeTime()
    engine = engine_with(1, time)
    began_s, took_s = 0.0, []
    for name in "aab":
        body = completion("Hello", max_tokens=1) | {"model": name}
        await Exchange(engine, COMPLETIONS, body, time).finish()
        took_s.append(time.now_s - began_s)
        began_s = time.now_s
    state = engine.tracker.snapshot().adapters
    await engine.stop()

    assert took_s == [LOAD_S + 1, 1, LOAD_S + 1]
    assert state is not None
    assert (state.loaded, state.max_loaded, state.load_s) == (["b"], 1, LOAD_S)


async def test_adapters_share_no_cache() -> None:
    """A prompt computed for one adapter is not cached for another, nor for the model."""
    engine = engine_with()
    cached: dict[str, list[int]] = {}
    for name in ("m", "a", "b", "a"):
        body = completion("Hello, how are you today?", max_tokens=1) | {"model": name}
        exchange = await Exchange(engine, COMPLETIONS, body).finish()
        cached.setdefault(name, []).append(cached_tokens(exchange))

    assert cached["m"] == cached["b"] == [0]
    assert cached["a"][0] == 0 < cached["a"][1]


async def test_a_change_of_adapters_is_reported_once() -> None:
    """Telemetry has the loaded adapters after a change, and in every snapshot."""
    engine = engine_with(1)
    engine.tracker.pop_update()
    body = chat(max_tokens=1) | {"model": "b"}
    await Exchange(engine, CHAT, body).finish()

    told = engine.tracker.pop_update()
    await Exchange(engine, CHAT, body).finish()
    again = engine.tracker.pop_update()

    assert told is not None
    assert told.adapters is not None
    assert told.adapters.loaded == ["b"]
    assert again is not None
    assert again.adapters is None
    assert engine.tracker.snapshot().adapters == told.adapters
