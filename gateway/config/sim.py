"""Entries of models that are only simulated."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.config.hardware import Accelerator, Cpu, Placed
from gateway.config.strict import Strict, conflict


class Simulation(Strict):
    """How fast and how large a simulated replica is.

    A step of the engine takes `step_s`, and more for every prompt token and sequence in it.
    """

    instant: bool = False
    """Answer at once, whatever the speeds below say."""
    step_s: float = Field(default=0.012, gt=0)
    """Seconds of a step; a sequence gets one token in each."""
    step_s_per_prefill_token: float = Field(default=0.0001, ge=0)
    """Seconds that every prompt token adds to the step that reads it."""
    step_s_per_sequence: float = Field(default=0.0002, ge=0)
    """Seconds that every sequence being answered adds to a step."""
    step_tokens: int = Field(default=4096, ge=1)
    """Tokens that one step reads and makes at most: longer prompts are read in chunks."""
    output_tokens: int = Field(default=64, ge=1)
    """Length of an answer where the client sets none."""
    kv_tokens: int = Field(default=65_536, ge=1)
    """Tokens the KV cache has room for."""
    block_size: int = Field(default=16, ge=1)
    """Tokens in one KV block."""
    max_sequences: int = Field(default=64, ge=1)
    """Sequences that run at the same time."""
    max_model_len: int = Field(default=32_768, ge=2)
    """Tokens of prompt and answer together."""
    start_s: float = Field(default=0, ge=0)
    """Seconds that its start takes."""
    start_error: str = ""
    """What its start fails with, if it is to."""
    adapter_load_s: float = Field(default=0.5, ge=0)
    """Seconds that loading an adapter takes."""
    time_scale: float = Field(default=1.0, gt=0)
    """How many of these seconds pass in one second of the clock: above 1 all is faster."""
    error_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests answered with a 500: on one replica always the same ones, by
    `x-request-id`; on another replica, others."""
    reset_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of answers that break off with their connection, a quarter of them before the first
    byte; which ones and where, as above."""
    hang_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests that get no byte until their client leaves; which ones, as above."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for field in ("block_size", "max_model_len"):
            if getattr(self, field) > self.kv_tokens:
                raise conflict(
                    f"{getattr(self, field)} is more than `kv_tokens` {self.kv_tokens}", field
                )
        if round(self.error_rate + self.reset_rate + self.hang_rate, 9) > 1:
            raise conflict("is more than `error_rate` and `reset_rate` leave", "hang_rate")
        if self.step_tokens < self.max_sequences:
            raise conflict(
                f"{self.step_tokens} is less than `max_sequences` {self.max_sequences}, each of"
                " which takes a token of every step",
                "step_tokens",
            )
        return self


class SimEntry(Placed):
    """A model that is only simulated, to rehearse routing, scaling and failures without weights.

    It is placed as vLLM would be, but runs no worker: logical GPUs are enough.
    """

    engine: Literal["sim"]
    """What runs the model."""
    accelerator: Accelerator = Cpu()
    """What the workers would run on: a mapping, or `cpu`, `gpu`, or a GPU type such as `H100`."""
    cpus_per_worker: float = Field(default=0.1, gt=0)
    """Logical CPUs that are reserved for each worker."""
    simulation: Simulation = Simulation()
    """How fast and how large a replica is."""
