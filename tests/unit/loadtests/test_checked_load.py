"""The load whose answers are checked."""

import random

import pytest

from loadtests.checked_load import CheckedLoad
from tests.http_server import Handler, serving


class Breaking(Handler):
    """A server that breaks off in the middle of each answer."""

    def post(self) -> None:
        """Send the head and the beginning of a stream."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'data: {"choices": []}\n\n')
        self.close_connection = True


@pytest.mark.parametrize("is_excused", [True, False])
async def test_a_broken_answer_is_cut_only_where_something_was_killed(is_excused: bool) -> None:
    """Otherwise it is lost."""
    looks: list[float] = []

    def is_over() -> bool:
        looks.append(0.0)
        return len(looks) > 1

    with serving(Breaking) as port:
        rng = random.Random(1)  # noqa: S311 - makes requests
        load = CheckedLoad(f"http://127.0.0.1:{port}", "m", rng, lambda *_: is_excused)
        await load.run(1, is_over)

    assert load.counts.sent == 1
    assert (load.counts.cut, load.counts.lost.total()) == ((1, 0) if is_excused else (0, 1))
