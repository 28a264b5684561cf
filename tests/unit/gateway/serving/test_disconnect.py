"""Detection of clients that disconnect, and of nothing else."""

import asyncio

import pytest

from gateway.asgi import Message
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_response import ClientResponse
from gateway.serving.disconnect import UntilDisconnect
from tests.unit.conftest import PATIENCE_S, Client


class Server:
    """An ASGI `receive` that has one message, once it is given."""

    def __init__(self) -> None:
        self.message: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.response = ClientResponse(Client().send, [])

    async def receive(self) -> Message:
        """Wait for the message."""
        return await self.message


async def work(server: Server, done: asyncio.Event) -> str:
    """Something that takes until `done`."""
    async with UntilDisconnect(server.receive, server.response):
        await done.wait()
    return "worked"


async def test_work_ends_when_the_client_disconnects() -> None:
    """The work is interrupted, and who asked for it learns why."""
    server = Server()
    task = asyncio.create_task(work(server, asyncio.Event()))
    await asyncio.sleep(0)
    server.message.set_result({"type": "http.disconnect"})
    with pytest.raises(ClientDisconnected):
        await asyncio.wait_for(task, PATIENCE_S)


async def test_a_disconnect_after_the_response_is_ignored() -> None:
    """Servers say so at the end of every answer, also of clients that are still there."""
    server, done = Server(), asyncio.Event()
    task = asyncio.create_task(work(server, done))
    await asyncio.sleep(0)
    await server.response.begin(200, [])
    await server.response.finish()
    server.message.set_result({"type": "http.disconnect"})
    await asyncio.sleep(0.01)
    done.set()
    assert await asyncio.wait_for(task, PATIENCE_S) == "worked"


async def test_work_ends_when_the_server_fails() -> None:
    """A server that breaks down has lost its client."""
    server = Server()
    task = asyncio.create_task(work(server, asyncio.Event()))
    await asyncio.sleep(0)
    server.message.set_exception(RuntimeError("broken"))
    with pytest.raises(ClientDisconnected):
        await asyncio.wait_for(task, PATIENCE_S)


async def test_cancellation_from_outside_stays_one() -> None:
    """A task that is cancelled ends so, even if the client disconnects at the same time."""
    server = Server()
    until = UntilDisconnect(server.receive, server.response)

    async def wait() -> None:
        async with until:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    server.message.set_result({"type": "http.disconnect"})
    while not until._has_disconnected:  # noqa: ASYNC110 - both must happen in the same turn of the loop
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_disconnect_after_the_work_is_ignored() -> None:
    """After the work a client may go, and nothing is cancelled any more."""
    server = Server()
    done = asyncio.Event()

    async def outlive() -> str:
        result = await work(server, done)
        if not server.message.done():
            server.message.set_result({"type": "http.disconnect"})
        await asyncio.sleep(0.01)
        return result

    done.set()
    assert await asyncio.wait_for(outlive(), PATIENCE_S) == "worked"


async def test_other_messages_do_not_end_the_work() -> None:
    """A server that repeats the end of the body has not lost its client."""
    server = Server()
    done = asyncio.Event()
    task = asyncio.create_task(work(server, done))
    await asyncio.sleep(0)
    server.message.set_result({"type": "http.request", "body": b"", "more_body": False})
    await asyncio.sleep(0.01)
    done.set()
    assert await asyncio.wait_for(task, PATIENCE_S) == "worked"


async def test_errors_of_the_work_pass() -> None:
    """Exceptions of the work come out unchanged."""
    with pytest.raises(ZeroDivisionError):
        async with UntilDisconnect(Server().receive, Server().response):
            raise ZeroDivisionError
