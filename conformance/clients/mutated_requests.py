"""2,000 mutated requests: no 5xx for a client's fault, and every error in its API's shape."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from conformance.checks import Check, CheckTarget
from conformance.http_answers import Answer, ask
from conformance.mutations import MutatedRequest, RequestMutations
from conformance.shapes import SHAPES, deviations

COUNT, SEED, AT_ONCE = 2000, 15, 8
CHECK_TIMEOUT_S = 900
ANSWER_TIMEOUT_S = 300


def fault_of(request: MutatedRequest, answer: Answer) -> str | None:
    """What is wrong with the answer to a mutated request."""
    shown = f"{request.path} {request.body[:300]!r}: {answer.status} {answer.body[:300]!r}"
    if answer.status >= 500:
        return f"5xx: {shown}"
    shape = "claude_error" if request.path.startswith("/v1/messages") else "error"
    if answer.status >= 400:
        try:
            wrong = deviations(answer.json, SHAPES[shape].answer)
        except ValueError:
            wrong = ["no JSON"]
        return f"misshapen {wrong}: {shown}" if wrong else None
    return None


def faults(url: str, count: int, seed: int) -> dict[str, list[str]]:
    """What is wrong with the answers to mutated requests, by path."""

    def send(request: MutatedRequest) -> tuple[str, str | None]:
        answer = ask(url, "POST", request.path, request.body, request.headers, ANSWER_TIMEOUT_S)
        return request.path, fault_of(request, answer)

    found: dict[str, list[str]] = {}
    requests = list(islice(RequestMutations(seed), count))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for path, fault in pool.map(send, requests):
            found.setdefault(path, [])
            if fault:
                found[path].append(fault)
    return found


class _Run:
    """The requests are sent once, for the first check that asks for them."""

    def __init__(self) -> None:
        self._faults: dict[str, list[str]] | None = None

    def check(self, kind: str) -> Check:
        """No answer has a fault of this kind."""

        def run(target: CheckTarget) -> None:
            if self._faults is None:
                self._faults = faults(target.url, COUNT, SEED)
            found = [f for fs in self._faults.values() for f in fs if f.startswith(kind)]
            counts = Counter(f.split()[1] for f in found)
            assert not found, f"{len(found)} {dict(counts)}: {found[0]}"

        return run


_RUN = _Run()
CHECKS: dict[str, Check] = {
    f"{COUNT} mutated requests: none is answered 5xx": _RUN.check("5xx"),
    f"{COUNT} mutated requests: every error has its API's shape": _RUN.check("misshapen"),
}
