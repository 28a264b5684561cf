"""Load generator in a process of its own: one job on standard input, its result on standard output.

Its CPU time is then counted apart from all others, and garbage collection in the command that
started it delays no request. `python -m loadtests.loadgen.worker HOST PORT < job` is that process.
"""

import asyncio
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from typing import TypeVar

import msgspec
import psutil
import uvloop

from gateway.simulation.results import percentile
from loadtests.loadgen.client import CHAT_PATH, Client, chat_body
from loadtests.loadgen.connection import EVENT, LAST_EVENT, Connection, Response, http_post
from loadtests.loadgen.loops import open_loop
from loadtests.loadgen.outcome import RequestOutcome, Status

GRACE_S = 30.0
"""More than the last requests of a saturation job take."""
START_S = 0.2
"""Time between encoding a schedule's requests and the first possible due time."""
PROCESS_GRACE_S = 60.0
"""More than the process takes to start, to encode requests and to write its result."""


R = TypeVar("R", "SaturationResult", "ScheduleResult")


class WorkerFailed(Exception):
    """The worker gave no result; the message says why."""


class SaturationJob(msgspec.Struct, frozen=True, kw_only=True, tag="saturation"):
    """Each client sends the same request again as soon as it is answered, until a limit."""

    model: str
    clients: int
    chunks: int
    """Tokens of each answer."""
    max_s: float
    max_requests: int
    api_key: str = ""

    @property
    def timeout_s(self) -> float:
        """Bound of the whole job."""
        return self.max_s + GRACE_S


class SaturationResult(msgspec.Struct, frozen=True, kw_only=True, tag="saturation"):
    """Counts and times of the answers."""

    requests: int
    events: int
    elapsed_s: float
    cpu_s: float
    """CPU time of the load generator itself."""
    ttft_s: list[float]
    """For each request, from its sending to the first byte of the answer's body."""


class ScheduledRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request and when it is due, in seconds from the start."""

    at_s: float
    prompt: str
    max_tokens: int


class ScheduleJob(msgspec.Struct, frozen=True, kw_only=True, tag="schedule"):
    """Each request is sent at its time, whether or not answers come."""

    model: str
    requests: list[ScheduledRequest]
    request_timeout_s: float

    @property
    def timeout_s(self) -> float:
        """Bound of the whole job."""
        return self.requests[-1].at_s + self.request_timeout_s


class ScheduleResult(msgspec.Struct, frozen=True, kw_only=True, tag="schedule"):
    """Outcomes in the order of the requests, due in seconds from the start, and the costs."""

    outcomes: list[RequestOutcome]
    late_s: float
    """99th percentile of how late requests were sent."""
    cpus: float
    """CPUs that the load generator kept busy."""
    busy_share: float
    """Share of the machine's CPUs that were busy, for whatever reason, while requests were sent."""


class _Saturation:
    """Counts of a saturation job; no task runs per request, and nothing is parsed."""

    def __init__(self, job: SaturationJob, request: bytes) -> None:
        self._request = request
        self._remaining = job.max_requests
        self._end_s = time.monotonic() + job.max_s
        self.requests = 0
        self.events = 0
        self.ttft_s: list[float] = []

    async def run_client(self, host: str, port: int) -> None:
        """Send over one connection until a limit is reached."""
        connection = await Connection.open(host, port)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def send() -> None:
            self._remaining -= 1
            if self._remaining >= 0 and time.monotonic() < self._end_s:
                connection.send(self._request, receive)
            else:
                done.set_result(None)

        def receive(response: Response) -> None:
            answer = response.body
            if response.status != 200 or not answer.endswith(LAST_EVENT):
                reason = response.error or repr(answer[:500])
                done.set_exception(WorkerFailed(f"status {response.status}: {reason}"))
                return
            self.requests += 1
            self.events += answer.count(EVENT)
            self.ttft_s.append(response.times_s[0] - response.sent_s)
            send()

        send()
        try:
            await done
        finally:
            connection.close()


async def run_saturation(host: str, port: int, job: SaturationJob) -> SaturationResult:
    """Send until one of the limits is reached.

    Raises:
        WorkerFailed: a response was not a whole stream.
        OSError: the server cannot be reached.
        TimeoutError: a response did not end.
    """
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    body = chat_body(job.model, "Say something about bridges.", job.chunks)
    del body["stream_options"]  # the usage is not read
    headers = {"authorization": f"Bearer {job.api_key}"} if job.api_key else {}
    request = http_post(host, port, CHAT_PATH, msgspec.json.encode(body), headers)
    saturation = _Saturation(job, request)
    async with asyncio.timeout(job.timeout_s):
        clients = [saturation.run_client(host, port) for _ in range(job.clients)]
        for error in await asyncio.gather(*clients, return_exceptions=True):
            if error is not None:
                raise error
    return SaturationResult(
        requests=saturation.requests,
        events=saturation.events,
        elapsed_s=time.monotonic() - start_s,
        cpu_s=time.process_time() - start_cpu_s,
        ttft_s=saturation.ttft_s,
    )


async def run_schedule(host: str, port: int, job: ScheduleJob) -> ScheduleResult:
    """Send every request at its time and wait for the last answer."""
    async with Client(host, port, timeout_s=job.request_timeout_s) as client:
        encoded = [
            client.encoded(CHAT_PATH, chat_body(job.model, each.prompt, each.max_tokens))
            for each in job.requests
        ]
        busy_shares: list[float] = []
        cpu_s, start_s = time.process_time(), time.monotonic() + START_S
        psutil.cpu_percent()  # from here on

        async def send(number: int, due_s: float) -> RequestOutcome:
            sending = client.chat(encoded[number], due_s)
            if number == len(encoded) - 1:  # waiting for the last answers would make it less
                busy_shares.append(psutil.cpu_percent() / 100)
            outcome, _ = await sending
            return _checked(outcome, job.requests[number])

        outcomes = await open_loop([each.at_s for each in job.requests], send, start_s)
        elapsed_s, cpu_s = time.monotonic() - start_s, time.process_time() - cpu_s
    return ScheduleResult(
        outcomes=outcomes,
        late_s=percentile(sorted(each.late_s for each in outcomes), 0.99),
        cpus=cpu_s / elapsed_s,
        busy_share=busy_shares[0],
    )


def _checked(outcome: RequestOutcome, request: ScheduledRequest) -> RequestOutcome:
    """The outcome, failed if the answer has another length; due from the schedule's start."""
    outcome = msgspec.structs.replace(outcome, due_s=request.at_s)
    if outcome.is_answered and outcome.completion_tokens != request.max_tokens:
        reason = f"{outcome.completion_tokens} tokens instead of {request.max_tokens}"
        return msgspec.structs.replace(outcome, status=Status.FAILED, reason=reason)
    return outcome


def saturate(host: str, port: int, job: SaturationJob) -> SaturationResult:
    """Run a saturation job in a process of its own.

    Raises:
        WorkerFailed: there is no result.
    """
    return _run(host, port, job, SaturationResult)


def replay(host: str, port: int, job: ScheduleJob) -> ScheduleResult:
    """Run a schedule in a process of its own.

    Raises:
        WorkerFailed: there is no result.
    """
    return _run(host, port, job, ScheduleResult)


def _run(host: str, port: int, job: SaturationJob | ScheduleJob, result: type[R]) -> R:
    timeout_s = job.timeout_s + PROCESS_GRACE_S
    with tempfile.TemporaryFile() as output:  # a pipe may lose its end on a busy machine
        try:
            done = subprocess.run(
                [sys.executable, "-m", "loadtests.loadgen.worker", host, str(port)],
                input=msgspec.msgpack.encode(job),
                stdout=output,
                stderr=subprocess.PIPE,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise WorkerFailed(f"the load generator took more than {timeout_s:.0f} s") from None
        output.seek(0)
        found = output.read()
    try:
        return msgspec.msgpack.decode(found, type=result)
    except msgspec.DecodeError as error:
        lines: list[str] = done.stderr.decode(errors="replace").strip().splitlines()
        status = f"the load generator ended with {done.returncode} ({error})"
        raise WorkerFailed("; ".join([*lines[-1:], status])) from None


def main() -> None:
    """Run the job on standard input against the host and port in the arguments."""
    host, port = sys.argv[1], int(sys.argv[2])
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=SaturationJob | ScheduleJob)
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if isinstance(job, SaturationJob):
            runner.run(_write(run_saturation(host, port, job)))
        else:
            runner.run(_write(run_schedule(host, port, job)))


async def _write(result: Awaitable[SaturationResult | ScheduleResult]) -> None:
    sys.stdout.buffer.write(msgspec.msgpack.encode(await result))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
