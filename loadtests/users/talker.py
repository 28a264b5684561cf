"""A user who waits for each answer, thinks, and goes on."""

from typing import ClassVar

from locust import User, task
from locust.exception import StopUser

from loadtests.users.load_test import LoadTest
from loadtests.users.outcome import Fate

AFTER_FAILURE_S = 1.0
"""A pause, at least: whoever is refused at once would otherwise do nothing but ask."""


class Talker(User):
    """Has conversations, one after the other, over one connection."""

    abstract = True
    test: ClassVar[LoadTest]

    def on_start(self) -> None:
        """Find something to talk about."""
        self._exchange = self.test.exchange()
        self._dialogue = self.test.load.dialogue()
        self._pause_s = 0.0

    def on_stop(self) -> None:
        """Hang up."""
        self._exchange.close()

    @task
    def say(self) -> None:
        """Send the next turn; one that was rejected is sent again, when the server says."""
        if self.test.stopping.is_set():  # locust may end a user's pause and the test at once
            raise StopUser
        dialogue = self._dialogue
        reply = self._exchange.send(dialogue.model, dialogue.turn)
        if reply.outcome.fate is Fate.REJECTED:
            self._pause_s = reply.retry_after_s
        elif reply.outcome.fate is Fate.ANSWERED:
            dialogue.go_on(reply.text)
            self._pause_s = dialogue.turn.pause_s
        else:
            dialogue.give_up()
            self._pause_s = max(AFTER_FAILURE_S, dialogue.turn.pause_s)

    def wait_time(self) -> float:
        """Seconds until the next turn."""
        return self._pause_s
