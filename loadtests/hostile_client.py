"""The hostile client of `abuse`: sends every attack in turn, and notes the answers."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from loadtests.attacks import COPY, Attack, attacks
from loadtests.launch import HOST
from loadtests.loadgen.client import Client
from loadtests.loadgen.outcome import RequestOutcome
from loadtests.loadgen.sse import error_reason

TIMEOUT_S = 60.0
"""How long it waits for an answer by default."""
PART_BYTES = 64 * 1024
PART_PAUSE_S = 0.5
"""Pace of a slow body: more than a server may demand of a poor connection."""
PAUSE_S = 0.2
"""Pause between two attacks."""
HEADERS = {"authorization": "Bearer hostile"}


class AttackLog(msgspec.Struct):
    """What each attack got, and when it was sent; times are of the monotonic clock, in seconds."""

    answers: dict[str, Counter[str]]
    """Answers, by status and code."""
    longest_s: dict[str, float]
    """Longest time until an answer."""
    spans: list[tuple[str, float, float]]
    """Attack, beginning and end."""

    @property
    def began_s(self) -> float:
        """When the first attack began."""
        return self.spans[0][1]

    def slowest_s(self, outcomes: Sequence[RequestOutcome]) -> dict[str, float]:
        """The longest TTFT of the requests that were due during each attack."""
        found = dict.fromkeys(self.answers, 0.0)
        for name, began_s, end_s in self.spans:
            during = (o.ttft_s or 0.0 for o in outcomes if began_s <= o.due_s <= end_s)
            found[name] = max(found[name], *during, 0.0)
        return found


def send_attacks(
    port: int, model: str, image_url: str, seconds: float, timeout_s: float
) -> AttackLog:
    """Send all attacks for `seconds`, each at least once; for a process of its own."""
    client = HostileClient(port, model, attacks(image_url), timeout_s)
    client.prepare()
    asyncio.run(client.attack(time.monotonic() + seconds))
    return client.log


class HostileClient:
    """Sends all attacks in turn, and notes the answers; `timeout_s`: how long it waits for one."""

    def __init__(
        self, port: int, model: str, attacks: Sequence[Attack], timeout_s: float = TIMEOUT_S
    ) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._model = model
        self._attacks = attacks
        self._requests: dict[str, list[bytes]] = {}
        """The request of each copy."""
        names = [attack.name for attack in attacks]
        self.log = AttackLog({name: Counter() for name in names}, dict.fromkeys(names, 0.0), [])

    def prepare(self) -> None:
        """Make all bodies, so that their making delays nobody."""
        client = Client(HOST, self._port, timeout_s=self._timeout_s, headers=HEADERS)
        for each in self._attacks:
            body = each.make_body(self._model)
            request = client.encoded_bytes(each.path, body, each.headers)
            # A number as long as what it replaces leaves the length of the body as it is.
            self._requests[each.name] = [
                request.replace(COPY, b"%0*d" % (len(COPY), copy)) for copy in range(each.copies)
            ]

    async def attack(self, end_s: float) -> None:
        """Send every attack once, and all again until `end_s`."""
        async with Client(HOST, self._port, timeout_s=self._timeout_s, headers=HEADERS) as client:
            while True:
                for attack in self._attacks:
                    began_s = time.monotonic()
                    for _ in range(attack.repeats):
                        await self._send_copies(client, attack)
                    self.log.spans.append((attack.name, began_s, time.monotonic()))
                    await asyncio.sleep(PAUSE_S)
                if time.monotonic() > end_s:
                    return

    async def _send_copies(self, client: Client, attack: Attack) -> None:
        requests = self._requests[attack.name]
        if attack.is_slow:
            copies = [self._send_slowly(attack, request) for request in requests]
        else:
            copies = [self._send(client, attack, request) for request in requests]
        await asyncio.gather(*copies)

    async def _send(self, client: Client, attack: Attack, request: bytes) -> None:
        began_s = time.monotonic()
        try:
            response = await client.post(request)
            answer = f"{response.status}"
            if response.status >= 400:
                answer += f" {error_reason(response.body)}"
        except (OSError, TimeoutError) as error:
            answer = type(error).__name__
        self._record(attack, answer, time.monotonic() - began_s)

    async def _send_slowly(self, attack: Attack, request: bytes) -> None:
        began_s = time.monotonic()
        reader, writer = await asyncio.open_connection(HOST, self._port)
        answer = asyncio.create_task(reader.readline())
        try:
            for start in range(0, len(request) // 8, PART_BYTES):
                writer.write(request[start : start + PART_BYTES])
                await asyncio.wait([answer], timeout=PART_PAUSE_S)
                if answer.done():
                    break
        finally:
            answer.cancel()
            writer.close()
        line = answer.result() if answer.done() and not answer.cancelled() else b"- none"
        self._record(attack, line.split()[1].decode(), time.monotonic() - began_s)

    def _record(self, attack: Attack, answer: str, seconds: float) -> None:
        self.log.answers[attack.name][answer] += 1
        self.log.longest_s[attack.name] = max(self.log.longest_s[attack.name], seconds)
