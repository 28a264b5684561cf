"""All outcomes of a test, also as locust's own statistics."""

from locust.env import Environment

from loadtests.users.outcome import Fate, Outcome


class Failed(Exception):
    """What locust counts as a failure, by its message."""


class Recorder:
    """Notes what comes of requests.

    End-to-end times alone count in locust's totals, or each request would count several times.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.outcomes: list[Outcome] = []
        """In the order of their ends."""

    def note(self, outcome: Outcome) -> None:
        """A request has ended."""
        self.outcomes.append(outcome)
        if outcome.fate is Fate.CUT:
            return  # nobody knows what would have come of it
        if outcome.fate is Fate.REJECTED:
            self._log("REJECTED", outcome, outcome.e2e_s * 1000)
            return
        is_failure = outcome.fate is Fate.FAILED
        self._environment.events.request.fire(
            request_type="E2E",
            name=outcome.model,
            response_time=outcome.e2e_s * 1000,
            response_length=0,
            exception=Failed(outcome.reason) if is_failure else None,
            context={},
        )
        if is_failure:
            return
        if outcome.ttft_s is not None:
            self._log("TTFT", outcome, outcome.ttft_s * 1000)
        if outcome.itl_s is not None:
            self._log("ITL", outcome, outcome.itl_s * 1000)
        self._log("TOK/S", outcome, outcome.tokens_per_s)
        self._log("CACHED", outcome, outcome.cached_tokens)

    def _log(self, statistic: str, outcome: Outcome, value: float) -> None:
        entry = self._environment.stats.get(outcome.model, statistic)
        entry.log(value, 0)  # type: ignore[arg-type] # milliseconds need not be whole

    def clear(self) -> None:
        """Begin anew."""
        self.outcomes.clear()
