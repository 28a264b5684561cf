"""The simulated engine's adapters, and the other names by which it is asked."""

from typing import Any

import pytest

from deployments.engines.sim.engine import SimulatedEngine
from gateway.config.serving_options import Adapter
from gateway.config.sim import SimEntry, Simulation
from tests.unit.simulated import (
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
    """Of the prompt, as the reply says."""
    return int(exchange.json["usage"]["prompt_tokens_details"]["cached_tokens"])


async def test_an_adapter_answers_under_its_own_name() -> None:
    """It is a model like any other to clients."""
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
    """A router says who answers, where a client has another name for it."""
    body = chat(max_tokens=2, stream=is_stream) | {"model": "gpt-4o"}
    headers = [dispatched(1, model=target)]
    exchange = await Exchange(engine_with(), CHAT, body, headers=headers).finish()
    replies: list[dict[str, Any]] = exchange.chunks if is_stream else [exchange.json]

    assert {reply["model"] for reply in replies} == {"gpt-4o"}


@pytest.mark.parametrize("headers", [[], [dispatched(1)], [dispatched(1, model="c")]])
async def test_only_a_router_may_use_other_names(headers: list[tuple[bytes, bytes]]) -> None:
    """The name must be the engine's own, or stand for one that is."""
    body = chat() | {"model": "gpt-4o"}
    exchange = await Exchange(engine_with(), CHAT, body, headers=headers).finish()

    assert exchange.status == 404
    assert "gpt-4o" in exchange.json["error"]["message"]


async def test_a_tokenizer_answers_to_every_name() -> None:
    """A stream that is carried on asks for tokens in the client's name."""
    body = {"model": "gpt-4o", "prompt": "Hello"}
    headers = [dispatched(1, model="a")]

    answered = await Exchange(engine_with(), "/tokenize", body, headers=headers).finish()
    refused = await Exchange(engine_with(), "/tokenize", body).finish()

    assert (answered.status, refused.status) == (200, 404)


async def test_an_adapter_is_loaded_when_it_is_first_used() -> None:
    """The first request waits for it, the next does not, until another one takes its place."""
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
    """What one has computed of a prompt is of no use to another one, or to the model."""
    engine = engine_with()
    cached: dict[str, list[int]] = {}
    for name in ("m", "a", "b", "a"):
        body = completion("Hello, how are you today?", max_tokens=1) | {"model": name}
        exchange = await Exchange(engine, COMPLETIONS, body).finish()
        cached.setdefault(name, []).append(cached_tokens(exchange))

    assert cached["m"] == cached["b"] == [0]
    assert cached["a"][0] == 0 < cached["a"][1]


async def test_a_change_of_adapters_is_reported_once() -> None:
    """Telemetry says what is loaded when that has changed, and in every snapshot."""
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
