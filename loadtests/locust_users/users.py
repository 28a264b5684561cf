"""Locust users: one that waits for answers, one that replays a trace."""

import time
from typing import ClassVar

from gevent.pool import Group
from locust import User, task
from locust.exception import StopUser

from loadtests.loadgen.outcome import Status
from loadtests.locust_users.http_client import ChatClient
from loadtests.locust_users.load_test import LoadTest
from loadtests.workloads.turn import Turn

FAILURE_PAUSE_S = 1.0
"""Least pause, or a user whose requests fail at once would do nothing but retry."""
REPLAY_CONNECTIONS = 10_000
"""More than any trace has in flight at a time."""


class ConversationUser(User):
    """Closed loop: has conversations, waits for each answer, thinks, and goes on."""

    abstract = True
    test: ClassVar[LoadTest]

    def on_start(self) -> None:
        """Open a client and start a conversation."""
        team = self.test.next_team()
        self._client = self.test.client(team)
        self._dialogue = self.test.dialogue(team)
        self._pause_s = 0.0

    def on_stop(self) -> None:
        """Close the client."""
        self._client.close()

    @task
    def send_turn(self) -> None:
        """Send the next turn; a rejected one is sent again after `Retry-After`."""
        if self.test.stopping.is_set():  # locust may end a user's pause and the test at once
            raise StopUser
        dialogue = self._dialogue
        reply = self._client.send(dialogue.model, dialogue.turn)
        if reply.outcome.status is Status.REJECTED:
            self._pause_s = reply.retry_after_s
        elif reply.outcome.is_answered:
            dialogue.advance(reply.text)
            self._pause_s = dialogue.turn.pause_s
        else:
            dialogue.abandon()
            self._pause_s = max(FAILURE_PAUSE_S, dialogue.turn.pause_s)

    def wait_time(self) -> float:
        """Seconds until the next turn."""
        return self._pause_s


class ReplayUser(User):
    """Open loop: sends a trace's requests at their times, whether or not answers come."""

    abstract = True
    test: ClassVar[LoadTest]

    @task
    def replay(self) -> None:
        """Send the trace until it or the test is over; then wait for the answers.

        Durations count from when a request was due, so that a client or a server that lags makes
        nothing look faster.
        """
        requests = Group()
        self.test.unsent = self.test.replay.count
        with self.test.client(self.test.next_team(), REPLAY_CONNECTIONS) as client:
            start_s = time.perf_counter()
            try:
                for at_s, turn in self.test.replay.timed():
                    due_s = start_s + at_s
                    if self.test.stopping.wait(max(0.0, due_s - time.perf_counter())):
                        break
                    requests.spawn(self._send, client, turn, due_s)
                self.test.stop_sending()
                requests.join()
            finally:
                requests.kill()
        self.test.is_over = True
        raise StopUser

    def _send(self, client: ChatClient, turn: Turn, due_s: float) -> None:
        self.test.unsent -= 1
        client.send(self.test.models[0], turn, due_s)
