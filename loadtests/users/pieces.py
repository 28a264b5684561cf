"""The time of a test cut into pieces of one length, to draw what happened in each."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from loadtests.users.figures import Span

MOST = 40
LEAST_S = 2.0
"""So long is a piece at least, unless the test is shorter."""


class Pieces:
    """Up to `MOST` pieces; all times are seconds since the beginning of the test.

    None is shorter than the others: what happens in a second would seem to fall at the end.
    """

    def __init__(self, seconds: float) -> None:
        self.count = max(1, min(MOST, int(seconds / LEAST_S)))
        self.length_s = seconds / self.count

    @property
    def starts_s(self) -> Sequence[float]:
        """When each begins."""
        return [piece * self.length_s for piece in range(self.count)]

    @property
    def middles_s(self) -> Sequence[float]:
        """When half of each is over."""
        return [start_s + self.length_s / 2 for start_s in self.starts_s]

    def at(self, at_s: float) -> int:
        """The piece of a time."""
        return min(int(at_s / self.length_s), self.count - 1)

    def counts(self, times_s: Iterable[float]) -> Sequence[int]:
        """How many of these times are in each."""
        found = Counter(map(self.at, times_s))
        return [found[piece] for piece in range(self.count)]

    def shares(self, begin_s: float, end_s: float) -> Iterator[tuple[int, float]]:
        """The pieces that a time touches, and how much of it is in each."""
        if end_s <= begin_s:
            yield self.at(end_s), 1.0
            return
        for piece in range(self.at(begin_s), self.at(end_s) + 1):
            start_s = piece * self.length_s
            whole = Span(begin_s=start_s, end_s=start_s + self.length_s)
            yield piece, whole.share(begin_s, end_s)
