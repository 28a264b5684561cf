"""One engine with its HTTP server and nothing around it, in a process of its own.

`python -m tests.engine_process ENTRY`, a model entry as JSON, prints where it listens once it does,
and ends when its standard input is closed.
"""

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.engine_kinds import start_engine
from deployments.engines.server import EngineServer
from gateway.config.loader import parse_entry
from gateway.telemetry.dispatch import DISPATCH, Dispatch
from gateway.telemetry.update import TELEMETRY_PATH, Update, UpdateReader

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_S = 60


@dataclass(frozen=True)
class EngineProcess:
    """A running engine, as a router reaches it."""

    port: int
    key: str
    log: Path

    def post(
        self, path: str, body: Mapping[str, object], dispatch: Dispatch | None = None
    ) -> tuple[int, Any]:
        """One request: its status and its answer, or, of a stream, the events."""
        with self._answer("POST", path, body, dispatch) as response:
            text = response.read().decode()
        if "text/event-stream" not in response.headers["content-type"]:
            return response.status, json.loads(text)
        data = [line.removeprefix("data: ") for line in text.splitlines() if "data: " in line]
        return response.status, [json.loads(event) for event in data if event != "[DONE]"]

    def chat(
        self, model: str, text: str, dispatch: Dispatch | None = None, **more: object
    ) -> tuple[int, Any]:
        """One chat completion, the same every time."""
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "temperature": 0, **more}
        return self.post("/v1/chat/completions", body, dispatch)

    def snapshot(self) -> Update:
        """What its telemetry says first."""
        with self._answer("GET", TELEMETRY_PATH) as response:
            reader = UpdateReader()
            updates: list[Update] = []
            while not updates:
                updates = reader.feed(response.read1())
        return updates[0]

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        dispatch: Dispatch | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        if dispatch:
            headers[DISPATCH.decode()] = dispatch.encode().decode()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            yield connection.getresponse()
        finally:
            connection.close()


@contextlib.contextmanager
def engine_process(entry: Mapping[str, object], directory: Path) -> Iterator[EngineProcess]:
    """Start the entry's engine, and stop it in the end."""
    log = directory / "engine.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine_process", json.dumps(entry)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            text=True,
            env=os.environ | dict(entry.get("env", {})),  # type: ignore[call-overload]
        )
        assert process.stdin is not None
        assert process.stdout is not None
        reader = threading.Thread(target=process.stdout.read)
        try:
            said = ""
            for line in process.stdout:  # vLLM may print, too
                if line.startswith('{"port"'):
                    said = line
                    break
            assert said, log.read_text()
            # What vLLM logs there would fill the pipe, and the engine would stop at its next line.
            reader.start()
            yield EngineProcess(**json.loads(said), log=log)
        finally:
            process.stdin.close()
            process.wait(STOP_TIMEOUT_S)
            if reader.ident:
                reader.join()
            process.stdout.close()


async def _serve(entry: dict[str, object]) -> None:
    engine = await start_engine(parse_entry(entry))
    server = EngineServer(engine, "127.0.0.1")
    await server.start()
    sys.stdout.write(json.dumps({"port": server.port, "key": server.key}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
