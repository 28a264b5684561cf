"""Batches on a whole gateway: run beside clients, and killed in the middle."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import openai
import pytest

from gateway.http.state.batches import BatchObject
from tests.gateway_process import GatewayProcess, model_application, wait_for

pytestmark = pytest.mark.integration

LINES = 1500
CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
SIMULATION = {"step_s": 0.01, "output_tokens": 12, "max_sequences": 16}


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """The gateway, with a model that has one simulated engine."""
    with shared.models(model_application(name="m", engine="sim", simulation=SIMULATION)):
        yield shared


def _client(gateway: GatewayProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=2)


def _line(number: int) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
    line = {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line).encode() + b"\n"


def _create(client: openai.OpenAI, folder: Path) -> str:
    path = folder / "in.jsonl"
    path.write_bytes(b"".join(map(_line, range(LINES))))
    file = client.files.create(file=path, purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    return batch.id


def _ids(client: openai.OpenAI, file_id: str | None) -> list[str]:
    if file_id is None:
        return []
    lines = client.files.content(file_id).content.splitlines()
    return [json.loads(line)["custom_id"] for line in lines]


def test_a_batch_survives_kills(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Of the process that runs it, and of an engine: each line is in the results once."""
    client = _client(gateway)
    batch_id = _create(client, tmp_path)

    def done() -> int:
        counts = client.batches.retrieve(batch_id).request_counts
        return counts.completed if counts is not None else 0

    wait_for(lambda: done() > 0)
    for process in gateway.replica_processes("gateway", "Batches"):
        process.kill()
    killed_at = done()
    wait_for(lambda: done() > killed_at, 90)
    for process in gateway.replica_processes("m"):
        process.kill()
    wait_for(lambda: client.batches.retrieve(batch_id).completed_at is not None, 120)

    ended = client.batches.retrieve(batch_id)
    assert ended.status == "completed"
    assert ended.request_counts is not None
    assert ended.request_counts.failed == 0
    assert killed_at < LINES
    found = [*_ids(client, ended.output_file_id), *_ids(client, ended.error_file_id)]
    assert sorted(found) == sorted(f"line-{number}" for number in range(LINES))
    assert ended.usage is not None
    assert ended.usage.output_tokens >= LINES
    BatchObject.model_validate(ended.to_dict(), strict=False)


def test_a_cancelled_batch_keeps_its_results(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Within seconds; the lines that have not run say so."""
    client = _client(gateway)
    batch_id = _create(client, tmp_path)
    wait_for(lambda: client.batches.retrieve(batch_id).status == "in_progress")
    time.sleep(1)  # noqa: TID251 - some lines run

    client.batches.cancel(batch_id)
    wait_for(lambda: client.batches.retrieve(batch_id).status == "cancelled")

    ended = client.batches.retrieve(batch_id)
    found = [*_ids(client, ended.output_file_id), *_ids(client, ended.error_file_id)]
    assert sorted(found) == sorted(f"line-{number}" for number in range(LINES))
