"""Models whose applications could not be built."""

import inspect
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from ray.serve.exceptions import RayServeException

from deployments import app
from deployments.failed_builds import FailedBuilds
from deployments.serve_internals import status
from deployments.serve_internals.start_failures import RETRY_AFTER_S, StartFailure
from gateway.routing.fleet import Fleet, ModelState, ServedModel

MESSAGE = "Deploying app 'x' failed with exception:\n"
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1\n'


class FakeController:
    """Serve's controller: its details of each application, and how often they were asked for."""

    def __init__(self) -> None:
        self.details: dict[str, Any] = {}
        self.calls = 0

    def answer(self) -> Mapping[str, Any]:
        """Answer one call."""
        self.calls += 1
        return self.details

    def fail(self, error: str, **deployments: Any) -> None:
        """Let an application have an entry that its builder has refused."""
        self.details["x"] = {
            "status": "DEPLOY_FAILED",
            "message": MESSAGE + error,
            "last_deployed_time_s": 1.0,
            "deployments": deployments,
            "deployed_app_config": {"args": {"name": "m"}},
        }


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> FakeController:
    """A controller without applications."""
    fake = FakeController()
    monkeypatch.setattr(status, "_application_details", fake.answer)
    return fake


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ('model "m": a: wrong\nmodel "m": b: wrong', 'model "m": a: wrong; model "m": b: wrong'),
        (f"{TRACEBACK}ModuleNotFoundError: No module named 'x'", "No module named 'x'"),
    ],
)
def test_a_model_whose_entry_is_wrong_is_known(
    controller: FakeController, error: str, reason: str
) -> None:
    """Clients learn the reason, by one call; once the entry is right, the application has it."""
    fleet = Fleet()
    builds = FailedBuilds(fleet)
    controller.fail(error)
    builds.update(status.serve_status().failed_builds)
    model = fleet.model("m")
    assert (model.state, model.reason) == (ModelState.UNHEALTHY, f"its entry is wrong: {reason}")
    assert controller.calls == 1
    controller.details.clear()
    builds.update(status.serve_status().failed_builds)
    assert not fleet.has("m")


def test_a_model_that_runs_goes_first(controller: FakeController) -> None:
    """An application that was changed for the worse keeps its engines, and its model."""
    fleet = Fleet()
    running = ServedModel("m", created_s=1)
    fleet.add(running)
    builds = FailedBuilds(fleet)
    controller.fail("no")
    builds.update(status.serve_status().failed_builds)
    builds.update({})
    assert fleet.model("m") is running
    engine = {"status": "HEALTHY", "status_trigger": "UNSPECIFIED", "message": "", "replicas": []}
    controller.fail("no", Engine=engine)
    assert status.serve_status().failed_builds == {}


def test_a_wrong_entry_is_refused_without_a_traceback() -> None:
    """Serve shows the message of this error alone."""
    args: Mapping[str, Any] = {"name": "m", "engine": "sim", "replicas": 0}
    with pytest.raises(RayServeException, match=r'^model "m": replicas: should be'):
        app.model(dict(args))


def test_a_failed_start_is_repeated_at_once_but_more_and_more_rarely() -> None:
    """After a while it is tried for real: what was wrong may have been mended."""
    pauses = [StartFailure("no", 100.0, count).pause_s(110.0) for count in (1, 2, 3, 100)]
    assert pauses == [2, 4, 8, 60]
    assert StartFailure("no", 100.0).pause_s(101.0 + RETRY_AFTER_S) is None


def test_serve_keeps_what_we_read_of_a_failed_application() -> None:
    """Its config with the `args`, and the message of this one error without a traceback."""
    from ray.serve._private import application_state
    from ray.serve.schema import ApplicationDetails

    assert "deployed_app_config" in ApplicationDetails.model_fields
    source = inspect.getsource(application_state)
    assert "except RayServeException as e:\n        return None, None, str(e)" in source
    assert "failed with exception:\\n{err}" in source


def test_serve_s_message_of_a_failed_start_obeys_the_limit_of_frames() -> None:
    """A replica that is about to end shows its error alone; Serve takes what `traceback` says."""
    from ray.serve._private import replica

    assert "raise RuntimeError(traceback.format_exc()) from None" in inspect.getsource(replica)
    code = "import sys, traceback\ndef f(): raise ValueError('x')\nsys.tracebacklimit = 0\n"
    code += "try: f()\nexcept ValueError: print(traceback.format_exc())"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "ValueError: x"
