"""Files of projects on a whole gateway: through HAProxy and two routers, State killed."""

import hashlib
import os

import openai
import pytest

from tests.gateway_process import GatewayProcess, wait_for

pytestmark = pytest.mark.integration

MIB = 1 << 20
SIZE = 40 * MIB
"""More than bodies of other routes may have."""


def test_files_outlive_state(shared: GatewayProcess) -> None:
    """A large file comes back through either router, also after State has been killed."""
    content = os.urandom(SIZE)
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="any", max_retries=0) as client:
        made = client.files.create(file=("a.bin", content), purpose="user_data")
        assert made.bytes == SIZE
        assert made.model_extra == {"sha256": hashlib.sha256(content).hexdigest()}
        for _ in range(4):
            assert client.files.content(made.id).content == content

        for process in shared.replica_processes("gateway", "State"):
            process.kill()

        def is_answered() -> bool:
            status, answer = shared.request("GET", f"/v1/files/{made.id}")
            assert status == 200 or answer["error"]["code"] == "state_unavailable"
            assert shared.request("GET", "/v1/models")[0] == 200
            return bool(status == 200)

        wait_for(is_answered)
        assert client.files.content(made.id).content == content
        client.files.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(made.id)
