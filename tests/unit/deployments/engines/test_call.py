"""Context of the HTTP request in which an engine is called: resolved names and dispatches."""

import asyncio

from deployments.engines.call import CallContext, current_call, with_call_context
from gateway.asgi import Message, Receive, Scope, Send
from gateway.telemetry.dispatch import DISPATCH, Dispatch


async def passed(dispatch: Dispatch | None) -> CallContext | None:
    """The call context that a request sees, in a context of its own."""
    known: list[CallContext | None] = []

    async def work() -> None:
        known.append(current_call())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.create_task(work())

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Nobody listens."""

    headers = [(DISPATCH, dispatch.encode())] if dispatch else []
    await with_call_context(app)({"type": "http", "headers": headers}, receive, send)
    return known[0]


async def test_a_dispatch_names_the_model_that_answers() -> None:
    """Responses show the name that the client asked for."""
    call = await passed(Dispatch(id=1, model="qwen"))
    assert call is not None

    assert call.resolve("gpt-4o") == "qwen"
    assert call.client_name("qwen") == "gpt-4o"


async def test_without_a_dispatch_a_name_resolves_to_itself() -> None:
    """Direct calls get no other names, nor does a request for the model's own name."""
    for dispatch in (None, Dispatch(id=1)):
        call = await passed(dispatch)
        assert call is not None

        assert call.resolve("gpt-4o") == "gpt-4o"
        assert call.client_name("qwen") == "qwen"


async def test_outside_of_requests_there_is_no_call_context() -> None:
    """Neither before nor after one."""
    await passed(None)

    assert current_call() is None


async def test_other_scopes_have_no_call_context() -> None:
    """`lifespan` reaches the application unchanged."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Message:
        return {}

    await with_call_context(app)({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
