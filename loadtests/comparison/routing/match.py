"""All contenders on all workloads, round after round; who fails on a workload leaves it."""

from collections.abc import Callable, Sequence

from rich.console import Console

from gateway.simulation.trace import TraceRequest
from loadtests.comparison.rotation import rotated
from loadtests.comparison.routing.fleet import Contender
from loadtests.comparison.routing.stretches import Stretches
from loadtests.comparison.routing.turn import BadTurn, Turn

LEAD_SHARE = 1 / 3
"""Of the counted seconds: what leads up to them."""

Play = Callable[[Contender, Sequence[TraceRequest], str, float], Turn]
"""`routing.turn.play`."""


def turn_s(seconds: float) -> float:
    """How long a turn takes of which so many seconds count."""
    return seconds * (1 + LEAD_SHARE)


class Match:
    """What has been played so far."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        stretches: Sequence[Stretches],
        seconds: float,
        play: Play,
        progress: Console,
    ) -> None:
        self._contenders = contenders
        self._stretches = stretches
        self._seconds = seconds
        self._play = play
        self._progress = progress
        self._turns: dict[str, dict[str, list[Turn]]] = {
            each.name: {contender.name: [] for contender in contenders} for each in stretches
        }
        self.dropped: dict[str, str] = {}
        """Contenders that left a workload, and why."""

    @property
    def turns(self) -> dict[str, dict[str, list[Turn]]]:
        """By workload and contender, of those that are still in it, one a round."""
        return {workload: turns for workload, turns in self._turns.items() if turns}

    def round(self, number: int) -> None:
        """Every workload with every contender that is still in it, each time in another order."""
        for each in self._stretches:
            requests = each.stretch(number, turn_s(self._seconds))
            for contender in rotated(self._contenders, number):
                if contender.name in self._turns[each.name]:
                    self._turn(each.name, contender, requests, number)

    def _turn(
        self, workload: str, contender: Contender, requests: Sequence[TraceRequest], number: int
    ) -> None:
        title = f"{workload}, round {number + 1}, {contender.name}"
        try:
            turn = self._twice(contender, requests, title)
        except BadTurn as error:
            self.dropped[f"{contender.name} on {workload}"] = f"round {number + 1}: {error}"
            del self._turns[workload][contender.name]
            self._say(f"{title}: out: {error}", "red")
        else:
            self._turns[workload][contender.name].append(turn)
            self._say(f"{title}: {turn}", "red" if turn.doubt else "dim")

    def _twice(self, contender: Contender, requests: Sequence[TraceRequest], title: str) -> Turn:
        """A turn, played once more if it is a bad one."""
        lead_s = LEAD_SHARE * self._seconds
        try:
            return self._play(contender, requests, title, lead_s)
        except BadTurn as error:
            self._say(f"{title}: once more: {error}", "red")
            return self._play(contender, requests, f"{title}, again", lead_s)

    def _say(self, text: str, style: str) -> None:
        self._progress.print(text, style=style, soft_wrap=True, highlight=False, markup=False)
