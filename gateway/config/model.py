"""Model entry: one kind for each engine."""

from typing import Annotated

from pydantic import Field

from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry

ModelEntry = Annotated[VllmEntry | SimEntry, Field(discriminator="engine")]
