"""Call of one method on all replicas of a deployment, whose answers come one by one.

Serve's own `results_async` returns all answers or none: one replica that hangs would hide those of
all others.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.serve_internals.fallback import GONE, warn_once


async def answers_in_time(
    handle: DeploymentHandle, method: str, *args: object, timeout_s: float
) -> Sequence[Any]:
    """Answers of the replicas that answer in time; errors are left out.

    Raises:
        Exception: whatever Serve raises if it cannot reach any replica.
    """
    response = handle.broadcast(method, *args)
    try:
        async with asyncio.timeout(timeout_s):
            results = await response._fetch_replica_results_async()
        calls = [asyncio.ensure_future(result.get_async()) for result in results]
    except GONE as error:
        consequence = "routers show only themselves while one of them does not answer"
        warn_once("Serve's broadcast", consequence, repr(error))
        found = await response.results_async(timeout_s=timeout_s, return_exceptions=True)
        return [each for each in found if not isinstance(each, BaseException)]
    if not calls:
        return []
    done, late = await asyncio.wait(calls, timeout=timeout_s)
    for call in late:
        call.cancel()
    return [call.result() for call in done if not call.cancelled() and call.exception() is None]
