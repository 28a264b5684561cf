"""Entries of simulated models."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.config.hardware import Accelerator, Cpu, PlacedEntry
from gateway.config.strict import Strict, field_error


class Simulation(Strict):
    """Speed and size of a simulated replica.

    An engine step takes `step_s`, plus time for every prompt token and sequence in it.
    """

    instant: bool = False
    """Answer at once, regardless of the speeds below."""
    step_s: float = Field(default=0.012, gt=0)
    """Seconds per step; each sequence gets one token per step."""
    step_s_per_prefill_token: float = Field(default=0.0001, ge=0)
    """Seconds that each prompt token adds to its step."""
    step_s_per_sequence: float = Field(default=0.0002, ge=0)
    """Seconds that each decoding sequence adds to a step."""
    step_tokens: int = Field(default=4096, ge=1)
    """Maximum tokens per step, read and generated: longer prompts are read in chunks."""
    output_tokens: int = Field(default=64, ge=1)
    """Tokens of an answer if the client sets no limit."""
    kv_tokens: int = Field(default=65_536, ge=1)
    """Capacity of the KV cache, in tokens."""
    block_size: int = Field(default=16, ge=1)
    """Tokens per KV cache block."""
    max_sequences: int = Field(default=64, ge=1)
    """Maximum number of sequences that run at the same time."""
    max_model_len: int = Field(default=32_768, ge=2)
    """Maximum tokens of prompt and answer together."""
    start_s: float = Field(default=0, ge=0)
    """Seconds that a start takes."""
    start_error: str = ""
    """If set, every start fails with this message."""
    adapter_load_s: float = Field(default=0.5, ge=0)
    """Seconds to load an adapter."""
    time_scale: float = Field(default=1.0, gt=0)
    """Simulated seconds per second of real time: above 1, everything runs faster."""
    error_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests answered with a 500. `x-request-id` decides which, differently on each
    replica, so a retry elsewhere may succeed."""
    reset_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of answers whose connection is reset, a quarter of them before the first byte; chosen
    as for `error_rate`."""
    hang_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests that never get a byte; chosen as for `error_rate`."""
    error_text: str = ""
    """If set, requests whose body has this text are answered with a 500, on every replica."""
    halt_text: str = ""
    """If set, a request whose body has this text halts its replica for `halt_s` seconds: nothing
    is answered or reported meanwhile."""
    halt_s: float = Field(default=10.0, gt=0)
    """Seconds of such a halt."""
    usage_folder: str = ""
    """If set, a folder in which each replica writes its usage records, before it reports them: to
    compare the ledger with."""

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
    """A simulated model, to rehearse routing, scaling and failures without weights.

    It is placed as a vLLM model would be, but runs no workers: logical GPUs are enough.
    """

    engine: Literal["sim"]
    """The engine that runs the model."""
    accelerator: Accelerator = Cpu()
    """Device that each worker would run on: a mapping, `cpu`, `gpu`, or a type such as `H100`."""
    cpus_per_worker: float = Field(default=0.1, gt=0)
    """Logical CPUs reserved for each worker."""
    simulation: Simulation = Simulation()
    """Speed and size of a replica."""
