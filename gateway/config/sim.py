"""Entry of a simulated model."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.config.hardware import Accelerator, Cpu, PlacedEntry
from gateway.config.strict import Strict, field_error


class Simulation(Strict):
    """Speed and size of a simulated replica.

    A step of the engine takes `step_s`, plus a time for every prompt token and sequence in it.
    """

    instant: bool = False
    """Answer at once, ignoring the speeds below."""
    step_s: float = Field(default=0.012, gt=0)
    """Seconds per step, in which each sequence gets one token."""
    step_s_per_prefill_token: float = Field(default=0.0001, ge=0)
    """Seconds that each prompt token adds to the step that computes it."""
    step_s_per_sequence: float = Field(default=0.0002, ge=0)
    """Seconds that each running sequence adds to a step."""
    step_tokens: int = Field(default=4096, ge=1)
    """Maximum number of tokens in one step; longer prompts are prefilled in chunks."""
    output_tokens: int = Field(default=64, ge=1)
    """Length of an answer if the client sets none."""
    kv_tokens: int = Field(default=65_536, ge=1)
    """Size of the KV cache, in tokens."""
    block_size: int = Field(default=16, ge=1)
    """Tokens per KV block."""
    max_sequences: int = Field(default=64, ge=1)
    """Maximum number of sequences that run at the same time."""
    max_model_len: int = Field(default=32_768, ge=2)
    """Maximum number of tokens in prompt and answer together."""
    start_s: float = Field(default=0, ge=0)
    """Seconds that a start takes."""
    start_error: str = ""
    """Error with which each start fails; empty for none."""
    adapter_load_s: float = Field(default=0.5, ge=0)
    """Seconds that loading an adapter takes."""
    time_scale: float = Field(default=1.0, gt=0)
    """Simulated seconds per second of the clock; above 1, everything is faster."""
    error_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests answered with status 500. The `x-request-id` decides which ones, and
    differently on each replica."""
    reset_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of answers whose connection is reset, a quarter of them before the first byte; chosen
    in the same way."""
    hang_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests that get no byte until the client disconnects; chosen in the same way."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for field in ("block_size", "max_model_len"):
            if getattr(self, field) > self.kv_tokens:
                raise field_error(
                    f"{getattr(self, field)} is more than `kv_tokens` {self.kv_tokens}", field
                )
        if round(self.error_rate + self.reset_rate + self.hang_rate, 9) > 1:
            raise field_error(
                "`error_rate`, `reset_rate` and `hang_rate` together exceed 1", "hang_rate"
            )
        if self.step_tokens < self.max_sequences:
            raise field_error(
                f"{self.step_tokens} is less than `max_sequences` {self.max_sequences}, each of"
                " which needs one token per step",
                "step_tokens",
            )
        return self


class SimEntry(PlacedEntry):
    """Simulated model, to rehearse routing, scaling and failures without weights.

    It is placed as vLLM would be but starts no workers, so logical GPUs are enough.
    """

    engine: Literal["sim"]
    """Engine that runs the model."""
    accelerator: Accelerator = Cpu()
    """Hardware the workers would use: a mapping, `cpu`, `gpu`, or a GPU type such as `H100`."""
    cpus_per_worker: float = Field(default=0.1, gt=0)
    """Logical CPUs that each worker reserves."""
    simulation: Simulation = Simulation()
    """Speed and size of a replica."""
