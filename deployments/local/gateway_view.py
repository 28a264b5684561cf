"""Reads how a gateway on this machine stands, and drains its routers."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import psutil
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.local.events import DeploymentView, GatewayView, HaproxyView, ReplicaView
from deployments.serve_internals.status import DeploymentDetails, deployment_details
from gateway.report import RouterReport

ROUTER_DEPLOYMENT = "Router"
STATUS_TIMEOUT_S = 10.0
REPORT_TIMEOUT_S = 2.0
CUT_TIMEOUT_S = 10.0
"""Time for routers to answer, after the requests have been ended."""
POLL_S = 0.2
HAPROXY = "haproxy"

_Deployments = dict[tuple[str, str], DeploymentDetails]


class RunningGateway:
    """The routers of a gateway, and all that Serve runs beside them.

    `application`: its name. `is_own`: the cluster has been started here, so that all its processes
    are in this one's session.
    """

    def __init__(self, application: str, *, is_own: bool = True) -> None:
        self._application = application
        self.is_own = is_own
        self._routers: DeploymentHandle | None = None
        self._reader = concurrent.futures.ThreadPoolExecutor(1)
        self._reading: concurrent.futures.Future[_Deployments] | None = None
        """Question for Serve's status that has not been answered."""
        # With Serve's throughput options, a handle works only in the event loop that uses it first.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def view(self) -> GatewayView:
        """How everything stands now.

        Raises:
            RayError, RayServeException, TimeoutError: Serve's controller does not answer.
        """
        deployments = {
            key: DeploymentView(
                target=each.target,
                replicas={
                    r.id: ReplicaView(r.state, r.pid, not self.is_own or _is_alive(r.pid))
                    for r in each.replicas
                },
                deployed_s=each.deployed_s,
            )
            for key, each in self._deployments().items()
        }
        haproxies = _haproxies() if self.is_own else {}
        return GatewayView(deployments, self.reports(), haproxies, time.monotonic())

    def has_routers(self) -> bool:
        """Whether a router runs; false if the controller does not answer."""
        with contextlib.suppress(Exception):
            routers = self._deployments().get((self._application, ROUTER_DEPLOYMENT))
            return routers is not None and any(r.state == "RUNNING" for r in routers.replicas)
        return False

    def reports(self) -> dict[str, RouterReport]:
        """Reports of the routers that answer, by their ids."""
        answers = self._call(REPORT_TIMEOUT_S, "report")
        return {
            answer["replica"]: msgspec.convert(answer["report"], RouterReport)
            for answer in answers
            if isinstance(answer, Mapping)
        }

    def drain(self, timeout_s: float, is_hurried: Callable[[], bool]) -> None:
        """End all requests within `timeout_s`, or at once as soon as `is_hurried`."""
        draining = threading.Thread(
            target=self._call, args=(timeout_s + CUT_TIMEOUT_S, "drain", timeout_s), daemon=True
        )
        draining.start()
        while draining.is_alive():
            draining.join(POLL_S)
            if is_hurried():
                self._call(CUT_TIMEOUT_S, "drain", 0.0)
                return

    def _deployments(self) -> _Deployments:
        """All deployments. A controller that hangs is asked once: a thread waits for its answer."""
        reading = self._reading or self._reader.submit(deployment_details)
        self._reading = reading
        concurrent.futures.wait([reading], STATUS_TIMEOUT_S)
        if not reading.done():
            raise TimeoutError(f"no answer for {STATUS_TIMEOUT_S:g} s")
        self._reading = None
        return reading.result()

    def _call(self, timeout_s: float, method: str, *args: object) -> list[Any]:
        """Answers of the routers; none where they do not answer in time, or do not exist."""
        with contextlib.suppress(Exception):
            if self._routers is None:
                self._routers = serve.get_deployment_handle(ROUTER_DEPLOYMENT, self._application)
            asking = _ask(self._routers, timeout_s, method, args)
            return asyncio.run_coroutine_threadsafe(asking, self._loop).result()
        return []


async def _ask(
    routers: DeploymentHandle, timeout_s: float, method: str, args: Sequence[object]
) -> list[Any]:
    response = routers.broadcast(method, *args)
    return list(await response.results_async(timeout_s=timeout_s, return_exceptions=True))


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return True
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _haproxies() -> dict[int, HaproxyView]:
    """HAProxy processes of this session."""
    found = {}
    session = os.getsid(0)
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            # To look up a session costs little, to look at a process much more.
            if os.getsid(pid) == session and (process := psutil.Process(pid)).name() == HAPROXY:
                found[pid] = HaproxyView(process.ppid(), _replaced(process.cmdline()))
    return found


def _replaced(command: list[str]) -> frozenset[int]:
    """Processes that an HAProxy tells to finish: the numbers after `-sf`."""
    after = command[command.index("-sf") + 1 :] if "-sf" in command else []
    return frozenset(int(word) for word in itertools.takewhile(str.isdigit, after))
