"""One user's conversations, one after the other, each with one of several models."""

import random
from collections.abc import Sequence

from loadtests.workloads.turn import Session, Turn, Workload


class Dialogue:
    """Always has a turn to send next.

    `models`: the ones to talk with, the most popular first: the second is asked half as often as
    the first, the third a third as often.
    """

    def __init__(self, workload: Workload, models: Sequence[str], rng: random.Random) -> None:
        self._workload = workload
        self._models = models
        self._weights = [1 / rank for rank in range(1, len(models) + 1)]
        self._rng = rng
        self._session: Session
        self.model: str
        """Whom the turn is for."""
        self.turn: Turn
        """What to send next."""
        self._begin()

    def go_on(self, answer: str) -> None:
        """The turn was answered."""
        try:
            self.turn = self._session.send(answer)
        except StopIteration:
            self._begin()

    def give_up(self) -> None:
        """The turn was not answered; the conversation ends here."""
        self._session.close()
        self._begin()

    def _begin(self) -> None:
        self.model = self._rng.choices(self._models, self._weights)[0]
        self._session = self._workload.session(self._rng)
        self.turn = next(self._session)
