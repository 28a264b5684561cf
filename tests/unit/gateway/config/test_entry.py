"""Tests of gateway.registry: what entries say when little is written."""

import pytest
from pydantic import ValidationError

from gateway.config.hardware import Cpu, Gpu
from gateway.config.loader import parse_entry, parse_gateway
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry
from gateway.errors import ConfigError
from gateway.routing.policies.registry import POLICIES

VLLM = {"engine": "vllm", "name": "m", "source": "s"}
SIM = {"engine": "sim", "name": "m"}


def vllm(**fields: object) -> VllmEntry:
    """A vLLM entry with these fields besides the required ones."""
    entry = parse_entry(VLLM | fields)
    assert isinstance(entry, VllmEntry)
    return entry


def test_engine_tells_the_entries_apart() -> None:
    """The field `engine` decides which entry is made."""
    assert isinstance(parse_entry(VLLM), VllmEntry)
    assert isinstance(parse_entry(SIM), SimEntry)


def test_a_short_entry_runs_one_worker_on_one_gpu() -> None:
    """Only name, engine and source have to be written."""
    entry = vllm()
    assert (entry.min_replicas, entry.max_replicas) == (1, 1)
    assert entry.parallelism.workers == 1
    assert entry.accelerator == Gpu(kind="gpu", type=None, per_node=8)
    assert entry.engine_args == {}


@pytest.mark.parametrize(
    ("fields", "replicas"),
    [
        ({}, (1, 1)),
        ({"replicas": 3}, (3, 3)),
        ({"autoscaling": {"max": 4}}, (1, 4)),
        ({"autoscaling": {"min": 0}}, (0, 1)),
        ({"autoscaling": {"min": 2, "max": 2}}, (2, 2)),
    ],
)
def test_replicas_from_either_field(fields: dict[str, object], replicas: tuple[int, int]) -> None:
    """A fixed number and a range are both seen through min and max."""
    entry = parse_entry(SIM | fields)
    assert (entry.min_replicas, entry.max_replicas) == replicas


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("cpu", Cpu()),
        ("gpu", Gpu(type=None, per_node=8)),
        ("H100", Gpu(type="H100", per_node=8)),
        ({"type": "L40S", "per_node": 4}, Gpu(type="L40S", per_node=4)),
        ({"kind": "gpu", "type": "RTX-PRO-6000"}, Gpu(type="RTX-PRO-6000", per_node=8)),
        ({"kind": "cpu"}, Cpu()),
    ],
)
def test_accelerator_shorthands(written: object, meant: Gpu | Cpu) -> None:
    """A word stands for the mapping it abbreviates; the long form takes any GPU type."""
    assert vllm(accelerator=written).accelerator == meant


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, None),
        ({"gpu_fraction": 1}, None),
        ({"gpu_fraction": 0.5}, 0.46),
        ({"gpu_fraction": 0.25}, 0.23),
    ],
)
def test_a_part_of_a_gpu_is_a_part_of_its_memory(
    fields: dict[str, object], share: float | None
) -> None:
    """What vLLM may take by itself stays within the fraction; of a whole GPU vLLM decides."""
    assert vllm(**fields).gpu_memory_utilization == share


@pytest.mark.parametrize(
    ("fraction", "share", "fits"),
    [(0.5, 0.5, True), (0.5, 0.51, False), (0.5, 1, False), (1, 0.95, True)],
)
def test_memory_asked_for_is_within_the_fraction(fraction: float, share: float, fits: bool) -> None:
    """An engine with half of a GPU cannot ask for more than half of its memory."""
    fields = {"gpu_fraction": fraction, "engine_args": {"gpu_memory_utilization": share}}
    if fits:
        assert vllm(**fields).gpu_fraction == fraction
        return
    wrong = "engine_args.gpu_memory_utilization: .* is more than `gpu_fraction` 0.5$"
    with pytest.raises(ConfigError, match=wrong):
        vllm(**fields)


@pytest.mark.parametrize("name", ["", "two words", "tab\there", "line\n", "bell\x07", "x" * 257])
def test_names_that_cannot_be_named(name: str) -> None:
    """A model's name is printable and without spaces."""
    with pytest.raises(ConfigError, match="name: "):
        parse_entry(SIM | {"name": name})


def test_names_with_slashes_are_names() -> None:
    """Model hubs' names are taken as they are."""
    assert parse_entry(SIM | {"name": "Qwen/Qwen3-8B"}).name == "Qwen/Qwen3-8B"


def test_entries_do_not_change() -> None:
    """An entry that was checked stays as it was checked."""
    entry = vllm()
    with pytest.raises(ValidationError, match="frozen"):
        entry.name = "other"


def test_an_entry_survives_its_own_json() -> None:
    """An entry written out and read back is the same entry."""
    entry = vllm(accelerator="H100", parallelism={"tensor": 2}, engine_args={"seed": 1})
    assert parse_entry(entry.model_dump(exclude_unset=True)) == entry


@pytest.mark.parametrize(
    ("tensor", "pipeline", "per_node", "runs"),
    [
        (8, 1, 8, True),
        (8, 2, 8, True),
        (4, 3, 8, True),
        (1, 9, 8, True),
        (3, 2, 8, True),
        (3, 3, 8, False),
        (9, 1, 8, False),
        (6, 2, 8, False),
    ],
)
def test_stages_must_fit_nodes(tensor: int, pipeline: int, per_node: int, runs: bool) -> None:
    """More workers than a node has GPUs are taken only if whole stages fill the nodes."""
    fields = {
        "parallelism": {"tensor": tensor, "pipeline": pipeline},
        "accelerator": {"per_node": per_node},
    }
    if runs:
        assert vllm(**fields).parallelism.workers == tensor * pipeline
    else:
        with pytest.raises(ConfigError, match=r"parallelism\.tensor: "):
            vllm(**fields)


def test_the_gateway_needs_no_settings() -> None:
    """An empty `user_config` is the default gateway."""
    assert parse_gateway({}).max_body_mb == 32
    assert parse_gateway({"max_body_mb": 0.5}).max_body_mb == 0.5


def test_every_policy_can_be_chosen() -> None:
    """A model's `routing.policy` takes the names of all policies there are, and no other."""
    for name in POLICIES:
        assert vllm(routing={"policy": name}).routing.policy == name
    with pytest.raises(ConfigError, match="should be 'marginal', 'least-pending'"):
        vllm(routing={"policy": "marginl"})


@pytest.mark.parametrize("key", ["short", "sixteen letters\n", "sechzehn Zeichen\u00fc"])
def test_an_admin_key_is_long_and_can_be_sent(key: str) -> None:
    """What guards the operators' routes is no toy, and fits into a header."""
    with pytest.raises(ConfigError, match="admin_key"):
        parse_gateway({"admin_key": key})


def test_an_admin_key_is_taken_as_written_or_from_the_environment() -> None:
    """So that secrets need not stand in a file that is shared."""
    environ = {"ADMIN": "a key from elsewhere"}

    assert parse_gateway({}).resolved_admin_key(environ) is None
    assert parse_gateway({"admin_key": "a key as written"}).resolved_admin_key({}) == (
        "a key as written"
    )
    assert parse_gateway({"admin_key": "env:ADMIN"}).resolved_admin_key(environ) == (
        "a key from elsewhere"
    )


@pytest.mark.parametrize("environ", [{}, {"ADMIN": ""}, {"ADMIN": "short"}])
def test_a_referenced_key_is_as_sound_as_a_written_one(environ: dict[str, str]) -> None:
    """No key, or one that is quickly guessed, would be no protection."""
    with pytest.raises(ConfigError, match="'ADMIN': must have at least 16"):
        parse_gateway({"admin_key": "env:ADMIN"}).resolved_admin_key(environ)


def test_requests_wait_for_a_while_where_nothing_is_said() -> None:
    """A short queue for interactive requests, a long one for batch, and no end of an answer."""
    entry = parse_entry(SIM)
    queue = entry.queue
    assert (queue.max_wait_s, queue.batch_max_wait_s, queue.max_requests) == (5, 600, 1000)
    assert entry.timeout_s is None
    assert parse_entry(SIM | {"queue": {"max_requests": 0}}).queue.max_requests == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout_s": 0},
        {"queue": {"max_wait_s": 0}},
        {"queue": {"batch_max_wait_s": -1}},
        {"queue": {"max_requests": -1}},
    ],
)
def test_times_to_wait_are_more_than_none(fields: dict[str, object]) -> None:
    """A limit that nothing could keep is a mistake."""
    with pytest.raises(ConfigError, match="should be greater than"):
        parse_entry(SIM | fields)
