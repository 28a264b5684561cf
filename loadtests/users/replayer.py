"""A user who sends a trace's requests at their times, whether or not answers come."""

import time
from typing import ClassVar

from gevent.pool import Group
from locust import User, task
from locust.exception import StopUser

from loadtests.users.exchange import Exchange
from loadtests.users.load_test import LoadTest
from loadtests.workloads.turn import Turn

CONNECTIONS = 10_000
"""More than any trace has requests on their way at a time."""


class Replayer(User):
    """Everybody in a trace."""

    abstract = True
    test: ClassVar[LoadTest]

    @task
    def replay(self) -> None:
        """Send all there is, or until the test is over; then wait for the answers.

        Times count from when a request was due, so that a client or a server that lags makes
        nothing look faster.
        """
        load, requests = self.test.load, Group()
        self.test.unsent = load.replay.count
        with self.test.exchange(CONNECTIONS) as exchange:
            start_s = time.perf_counter()
            try:
                for at_s, turn in load.replay.timed():
                    due_s = start_s + at_s
                    if self.test.stopping.wait(max(0.0, due_s - time.perf_counter())):
                        break
                    requests.spawn(self._send, exchange, turn, due_s)
                self.test.end_sending()
                requests.join()
            finally:
                requests.kill()
        self.test.is_over = True
        raise StopUser

    def _send(self, exchange: Exchange, turn: Turn, due_s: float) -> None:
        self.test.unsent -= 1
        exchange.send(self.test.load.model, turn, due_s)
