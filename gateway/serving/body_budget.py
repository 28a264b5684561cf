"""Budget of a router for the bodies of requests: the bytes that all of them, and each client, hold.

A body counts to the end of its request: it may be needed for another attempt. The budget is shared
by dynamic thresholds (Choudhury and Hahne, 1998): a client may hold as much as is free, so one
alone takes at most half, two a third each, and whoever holds most is refused first. Bodies that
still arrive may take a third of what a client could add: they are cheap to send again, and a client
that wants to hold memory sends slowly.

A body of known length takes its room before it is read, and waits a while for it: its sender is
paused meanwhile, so that bursts cost nothing but time. If a client's own uploads stand in the way
of a newer one, the oldest of them is given up, so that slow ones block nobody behind the same
address. Small bodies are counted, but never refused: connections bound them.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.errors.limits import BodyBudgetExceeded

SMALL_BODY = 64 * 1024
"""Bytes of a body that is never refused."""
ARRIVING_DIVISOR = 3
"""A client's bodies that arrive take at most this part of what it may hold."""
STALE_S = 5.0
"""Seconds after which an upload may be given up for a newer one of the same client."""
WAIT_S = 15.0
"""How long a body waits for room."""
CHECK_S = 0.1
"""How often it is checked whether there is room."""
RETRY_AFTER_S = 2.0
MIB = 1024 * 1024


class BodyBudget:
    """Budget of one router; `limit_bytes`: its size, which may change."""

    def __init__(self, limit_bytes: Callable[[], int]) -> None:
        self._limit_bytes = limit_bytes
        self._clients: dict[bytes, ClientBodies] = {}
        self.held_bytes = 0
        """Bytes of all bodies."""

    @property
    def limit_bytes(self) -> int:
        """Bytes that all bodies together may hold."""
        return self._limit_bytes()

    def open(self, client: bytes) -> "HeldBody":
        """The body of a new request, as a context that ends with the request."""
        bodies = self._clients.get(client)
        if bodies is None:
            bodies = self._clients[client] = ClientBodies()
        bodies.count += 1
        return HeldBody(self, client, bodies)

    @property
    def clients(self) -> int:
        """How many clients have requests under way."""
        return len(self._clients)

    def close(self, client: bytes, bodies: "ClientBodies") -> None:
        """A request of the client has ended."""
        bodies.count -= 1
        if not bodies.count:
            del self._clients[client]

    def make_room(self, body: "HeldBody", size: int, *, is_arriving: bool) -> None:
        """Check that `body` may grow by `size` bytes; give up older uploads of its client for it.

        `is_arriving`: they do not complete it.

        Raises:
            BodyBudgetExceeded: there is no room for it.
        """
        bodies = body.bodies
        while self._is_full(bodies, size, is_arriving=is_arriving):
            if not bodies.give_up_stale(body):
                raise BodyBudgetExceeded(
                    f"There is no room for {(body.size + size) / MIB:.1f} MiB of this request's"
                    f" body: requests of your project or address hold {bodies.held / MIB:.1f} MiB"
                    f" of the {self.limit_bytes / MIB:g} MiB that the gateway has for bodies.",
                    RETRY_AFTER_S,
                )

    def _is_full(self, bodies: "ClientBodies", size: int, *, is_arriving: bool) -> bool:
        free = self.limit_bytes - self.held_bytes - size
        if is_arriving and ARRIVING_DIVISOR * (bodies.arriving + size) > free:
            return True
        return bodies.held + size > free


class ClientBodies:
    """Bodies of one client."""

    __slots__ = ("arriving", "count", "held", "uploads")

    def __init__(self) -> None:
        self.count = 0
        """Its requests."""
        self.held = 0
        """Bytes of their bodies."""
        self.arriving = 0
        """Bytes of those that have not come to their end."""
        self.uploads: dict[HeldBody, None] = {}
        """Large ones that have not come to their end, oldest first."""

    def give_up_stale(self, newer: "HeldBody") -> bool:
        """Give up the oldest upload; False if it is not older than `STALE_S`, or `newer` itself."""
        oldest = next(iter(self.uploads), None)
        if oldest is None or oldest is newer or not oldest.is_stale:
            return False
        oldest.give_up()
        return True


class HeldBody:
    """The body of one request, as a context; what it holds is free again at the end."""

    __slots__ = (
        *("_arriving", "_began_s", "_budget", "_client", "_timeout"),
        *("bodies", "came", "is_given_up", "size"),
    )

    def __init__(self, budget: BodyBudget, client: bytes, bodies: ClientBodies) -> None:
        self._budget = budget
        self._client = client
        self._timeout: asyncio.Timeout | None = None
        self._began_s = 0.0
        self._arriving = 0
        self.bodies = bodies
        self.size = 0
        """Bytes that it holds, or will hold."""
        self.came = 0
        """Bytes that have arrived."""
        self.is_given_up = False
        """Whether newer bodies of its client have taken its place."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()
        self.shrink(self.size)
        self._budget.close(self._client, self.bodies)

    @property
    def is_stale(self) -> bool:
        """Whether it has been arriving for long."""
        return asyncio.get_running_loop().time() - self._began_s >= STALE_S

    async def expect(self, size: int) -> None:
        """Take the room for a body of this size before any of it is read, if it is large.

        Raises:
            BodyBudgetExceeded: there has been no room for it.
        """
        if size <= SMALL_BODY:
            return
        loop = asyncio.get_running_loop()
        end_s = loop.time() + WAIT_S
        # Room comes from any request that ends, and with time.
        while not self._has_room(size, is_last=loop.time() >= end_s):  # noqa: ASYNC110
            await asyncio.sleep(CHECK_S)
        self._add(size)
        self._arriving = size
        self.bodies.arriving += size

    def begin(self, timeout: asyncio.Timeout) -> None:
        """The body is read from now on, with this time limit."""
        self._timeout = timeout
        if self.size:
            self._join()

    def arrive(self, size: int) -> None:
        """So many bytes have come, and more will follow.

        Raises:
            BodyBudgetExceeded: there is no room for them.
            TimeoutError: it has been given up.
        """
        more = self._record(size)
        if more > 0:
            self.grow(more, is_arriving=True)
            self._arriving += more
            self.bodies.arriving += more
            if self.size > SMALL_BODY:
                self._join()

    def complete(self, size: int) -> None:
        """So many bytes have come, and they were the last.

        Raises:
            BodyBudgetExceeded: there is no room for them.
            TimeoutError: it has been given up.
        """
        self.grow(self._record(size))
        self._leave()

    def shrink(self, size: int) -> None:
        """Hold `size` bytes less."""
        self._add(-size)

    def give_up(self) -> None:
        """Stop the arrival: its reader raises `TimeoutError` and lets go of what has come."""
        self.is_given_up = True
        self._leave()
        self.shrink(self.size)
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _has_room(self, size: int, *, is_last: bool) -> bool:
        try:
            self._budget.make_room(self, size, is_arriving=True)
        except BodyBudgetExceeded:
            if is_last:
                raise
            return False
        return True

    def grow(self, size: int, *, is_arriving: bool = False) -> None:
        """Hold `size` more bytes; `is_arriving`: the body is not complete with them.

        Raises:
            BodyBudgetExceeded: there is no room for them.
        """
        if self.size + size > SMALL_BODY and size > 0:
            self._budget.make_room(self, size, is_arriving=is_arriving)
        self._add(size)

    def _record(self, size: int) -> int:
        """Record bytes that have come; return how many more than it holds have."""
        if self.is_given_up:
            raise TimeoutError
        self.came += size
        return self.came - self.size

    def _add(self, size: int) -> None:
        self.size += size
        self.bodies.held += size
        self._budget.held_bytes += size

    def _join(self) -> None:
        """Be among its client's uploads."""
        if self not in self.bodies.uploads:
            self._began_s = asyncio.get_running_loop().time()
            self.bodies.uploads[self] = None

    def _leave(self) -> None:
        """Be no upload any more."""
        self.bodies.arriving -= self._arriving
        self._arriving = 0
        self.bodies.uploads.pop(self, None)
