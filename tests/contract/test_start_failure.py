"""The error of a failed start, extracted from Serve's messages."""

import pytest
from ray.serve.schema import ApplicationStatus, DeploymentStatusOverview, ReplicaState

from deployments.model_state import model_state
from deployments.serve_internals.status import ERROR_LENGTH, start_failure
from gateway.routing.fleet import ModelState

TRACEBACK = """\
ray::ServeReplica:bad:Engine.initialize_and_get_metadata() (pid=1, ip=127.0.0.1)
  File "/python/concurrent/futures/_base.py", line 456, in result
    return self.__get_result()
           ^^^^^^^^^^^^^^^^^^^
RuntimeError: Traceback (most recent call last):
  File "/ray/serve/_private/replica.py", line 4010, in _call_func_or_gen
    result = await result
             ^^^^^^^^^^^^
  File "/deployments/engines/sim.py", line 165, in start
    raise SimulatedFailure(simulation.start_error)
"""
FAILED = (
    "The deployment failed to start 3 times in a row. See controller logs. Error:\n" + TRACEBACK
)
RETRYING = "A replica failed to start with exception. Retrying. Error:\n" + TRACEBACK


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        (FAILED + "deployments.engines.sim.SimulatedFailure: no such weights", "no such weights"),
        (RETRYING + "ValueError: bad: worse\n", "bad: worse"),
        (
            RETRYING + "pydantic.ValidationError: 1 error for ModelConfig\n  Value error, no 'x'\n",
            "1 error for ModelConfig Value error, no 'x'",
        ),
        (RETRYING + "OSError: " + "x" * 1000, "x" * ERROR_LENGTH),
        # As an engine's replica fails: its process shows no frames.
        (
            (
                "A replica failed to start with exception. Retrying. Error:\n"
                "RuntimeError: deployments.engine_failure.EngineStartFailed: bad: X is not set"
            ),
            "bad: X is not set",
        ),
        ("A replica failed to start. Error:\nRuntimeError: bad: worse", "bad: worse"),
        ("Upscaling from 0 to 1 replicas.", ""),
        ("", ""),
    ],
)
def test_a_start_failure_is_the_error_without_its_traceback(message: str, failure: str) -> None:
    """In one line, without its class name, however many lines it had."""
    assert start_failure(message) == failure


def test_a_model_that_does_not_start_says_why() -> None:
    """While Serve retries and after it has given up, but not once it is at rest."""
    message = RETRYING + "ValueError: no such weights"
    words = "its engine does not start: no such weights"
    starting = {ReplicaState.STARTING: 1}

    def standing(status: str, replicas: dict[ReplicaState, int]) -> tuple[ModelState, str]:
        engine = DeploymentStatusOverview(
            status=status, status_trigger="", replica_states=replicas, message=message
        )
        return model_state(False, ApplicationStatus.RUNNING, engine)

    assert standing("UPSCALING", starting) == (ModelState.UNHEALTHY, words)
    assert standing("UNHEALTHY", {}) == (ModelState.UNHEALTHY, words)
    assert standing("HEALTHY", {})[0] is ModelState.SCALED_TO_ZERO
