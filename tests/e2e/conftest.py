"""Real vLLM engines on the CPU, started as the README says, and the SDKs that talk to them."""

from collections.abc import Iterator

import anthropic
import openai
import pytest
import yaml

from tests.e2e.twins import with_twins
from tests.gateway_process import ROOT, Document, GatewayProcess


@pytest.fixture(scope="package")
def dev_config() -> Document:
    """What `make serve` serves."""
    config: Document = yaml.safe_load((ROOT / "configs" / "dev.yaml").read_text())
    return config


@pytest.fixture(scope="package")
def gateway(
    dev_config: Document, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """The gateway of `configs/dev.yaml`, with the twins beside its models.

    An engine takes long to start: modules share these, and the last that needs the twins ends them.
    """
    with GatewayProcess(with_twins(dev_config), tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="package")
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, pointed at the gateway."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="package")
def claude(gateway: GatewayProcess) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, pointed at the gateway."""
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client:
        yield client
