"""A user who sends a trace's requests at their times, whether or not answers come."""

import time
from typing import ClassVar

from gevent.pool import Group
from locust import User, task
from locust.exception import StopUser

from loadtests.users.exchange import Exchange
from loadtests.users.load_test import HOST, LoadTest
from loadtests.workloads.turn import Turn

CONNECTIONS = 10_000
"""More than any trace has requests on their way at a time."""


class Replayer(User):
    """Everybody in a trace."""

    abstract = True
    host = HOST
    test: ClassVar[LoadTest]

    @task
    def replay(self) -> None:
        """Send all there is, or until the test is over; then wait for the answers."""
        load, requests = self.test.load, Group()
        with Exchange(self.host or HOST, load.api_key, CONNECTIONS) as exchange:
            start_s = time.monotonic()
            try:
                for at_s, turn in load.replay.timed():
                    if self.test.stopping.wait(max(0.0, start_s + at_s - time.monotonic())):
                        break
                    requests.spawn(self._send, exchange, load.model, turn)
                requests.join()
            finally:
                requests.kill()
        self.test.is_over = True
        raise StopUser

    def _send(self, exchange: Exchange, model: str, turn: Turn) -> None:
        self.test.recorder.note(exchange.send(model, turn).outcome)
