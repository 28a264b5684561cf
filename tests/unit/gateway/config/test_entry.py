"""Model entries and the gateway config: defaults, shorthands and limits."""

import pytest
from pydantic import ValidationError

from gateway.config.hardware import Cpu, Gpu
from gateway.config.loader import parse_entry, parse_gateway
from gateway.config.policy_names import policy_names
from gateway.config.resolution import resolve_gateway
from gateway.config.serving_options import ServingOptions
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry
from gateway.errors.startup import ConfigError

VLLM = {"engine": "vllm", "name": "m", "source": "s"}
SIM = {"engine": "sim", "name": "m"}


def vllm(**fields: object) -> VllmEntry:
    """A vLLM entry with these fields and the required ones."""
    entry = parse_entry(VLLM | fields)
    assert isinstance(entry, VllmEntry)
    return entry


def test_the_engine_decides_the_kind_of_entry() -> None:
    """`engine: vllm` and `engine: sim` make different entries."""
    assert isinstance(parse_entry(VLLM), VllmEntry)
    assert isinstance(parse_entry(SIM), SimEntry)


def test_a_short_entry_runs_one_worker_on_one_gpu() -> None:
    """Only name, engine and source are required."""
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
def test_replicas_come_from_either_field(
    fields: dict[str, object], replicas: tuple[int, int]
) -> None:
    """A fixed number and a range both give a minimum and a maximum."""
    entry = parse_entry(SIM | fields)
    assert (entry.min_replicas, entry.max_replicas) == replicas


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("cpu", Cpu()),
        ("gpu", Gpu(type=None, per_node=8)),
        ("H100", Gpu(type="H100", per_node=8)),
        ({"type": "L40S", "per_node": 4}, Gpu(type="L40S", per_node=4)),
        ({"kind": "gpu", "type": "RTX-PRO-6000"}, Gpu(type="RTX-PRO-6000", per_node=8)),
        ({"kind": "cpu"}, Cpu()),
    ],
)
def test_accelerator_shorthands_are_expanded(written: object, expanded: Gpu | Cpu) -> None:
    """A shorthand stands for its mapping; the mapping accepts any GPU type."""
    assert vllm(accelerator=written).accelerator == expanded


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, None),
        ({"gpu_fraction": 1}, None),
        ({"gpu_fraction": 0.5}, 0.46),
        ({"gpu_fraction": 0.25}, 0.23),
    ],
)
def test_a_fraction_of_a_gpu_is_a_fraction_of_its_memory(
    fields: dict[str, object], share: float | None
) -> None:
    """vLLM's default memory use stays within the fraction; for a whole GPU, vLLM decides."""
    assert vllm(**fields).gpu_memory_utilization == share


@pytest.mark.parametrize(
    ("fraction", "share", "fits"),
    [(0.5, 0.5, True), (0.5, 0.51, False), (0.5, 1, False), (1, 0.95, True)],
)
def test_configured_memory_must_be_within_the_fraction(
    fraction: float, share: float, fits: bool
) -> None:
    """An engine with half of a GPU cannot ask for more than half of its memory."""
    fields = {"gpu_fraction": fraction, "engine_args": {"gpu_memory_utilization": share}}
    if fits:
        assert vllm(**fields).gpu_fraction == fraction
        return
    wrong = "engine_args.gpu_memory_utilization: .* is more than `gpu_fraction` 0.5$"
    with pytest.raises(ConfigError, match=wrong):
        vllm(**fields)


@pytest.mark.parametrize("name", ["", "two words", "tab\there", "line\n", "bell\x07", "x" * 257])
def test_unprintable_names_are_rejected(name: str) -> None:
    """A model's name is printable and has no spaces."""
    with pytest.raises(ConfigError, match="name: "):
        parse_entry(SIM | {"name": name})


def test_names_with_slashes_are_accepted() -> None:
    """Names from a model hub are valid model names."""
    assert parse_entry(SIM | {"name": "Qwen/Qwen3-8B"}).name == "Qwen/Qwen3-8B"


def test_entries_are_frozen() -> None:
    """A validated entry cannot be changed."""
    entry = vllm()
    with pytest.raises(ValidationError, match="frozen"):
        entry.name = "other"


def test_an_entry_survives_a_round_trip() -> None:
    """An entry that is dumped and parsed again is equal."""
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
def test_pipeline_stages_must_fit_on_nodes(
    tensor: int, pipeline: int, per_node: int, runs: bool
) -> None:
    """More workers than a node has GPUs are accepted only if whole stages fill the nodes."""
    fields = {
        "parallelism": {"tensor": tensor, "pipeline": pipeline},
        "accelerator": {"per_node": per_node},
    }
    if runs:
        assert vllm(**fields).parallelism.workers == tensor * pipeline
    else:
        with pytest.raises(ConfigError, match=r"parallelism\.tensor: "):
            vllm(**fields)


def test_the_gateway_config_may_be_empty() -> None:
    """An empty `user_config` gives the defaults."""
    assert parse_gateway({}).max_body_mb == 32
    assert parse_gateway({"max_body_mb": 0.5}).max_body_mb == 0.5


def test_every_policy_can_be_chosen() -> None:
    """A model's `routing.policy` takes the names of all policies, and suggests the nearest."""
    for name in policy_names():
        assert vllm(routing={"policy": name}).routing.policy == name
    with pytest.raises(ConfigError, match='found "marginl", did you mean `marginal`'):
        vllm(routing={"policy": "marginl"})


@pytest.mark.parametrize("key", ["short", "sixteen letters\n", "sechzehn Zeichen\u00fc"])
def test_a_weak_admin_key_is_rejected(key: str) -> None:
    """The key must be long enough, and printable ASCII so that it fits into a header."""
    with pytest.raises(ConfigError, match="admin_key"):
        parse_gateway({"admin_key": key})


def test_the_budget_for_bodies_has_room_for_the_largest() -> None:
    """It grows with `max_body_mb` by default, and may not be set below four times that."""
    assert parse_gateway({}).bodies_bytes == 512 << 20
    assert parse_gateway({"max_body_mb": 100}).bodies_bytes == 1600 << 20
    assert parse_gateway({"max_body_mb": 1, "max_bodies_mb": 4}).bodies_bytes == 4 << 20
    with pytest.raises(ConfigError, match=r"max_bodies_mb: must be at least 4 times"):
        parse_gateway({"max_bodies_mb": 100})


@pytest.mark.parametrize(
    "origins",
    [
        *([], ["*", "https://a.example"], ["https://a.example/"], ["a.example"], ["null"]),
        *(["https://A.example"], ["https://a.example/x"], [""], ["https://*.example"]),
        *(["https://a\r\nx: y"], ["https://user@a.example"]),
    ],
)
def test_a_wrong_origin_is_rejected(origins: list[str]) -> None:
    """An origin that no browser sends is a mistake."""
    with pytest.raises(ConfigError, match=r"cors\.origins"):
        parse_gateway({"cors": {"origins": origins}})


@pytest.mark.parametrize(
    "origin", ["*", "https://a.example", "http://localhost:3000", "http://[::1]:80", "app://x"]
)
def test_an_origin_is_accepted(origin: str) -> None:
    """Web pages, local ones, and applications with a scheme of their own."""
    cors = parse_gateway({"cors": {"origins": [origin]}}).cors
    assert cors is not None
    assert cors.origins == [origin]


def test_an_admin_key_is_written_or_read_from_the_environment() -> None:
    """Secrets can be kept out of a shared file."""
    environ = {"ADMIN": "a key from elsewhere"}

    def key(config: dict[str, str]) -> str | None:
        return resolve_gateway(parse_gateway(config), environ).admin_key

    assert key({}) is None
    assert key({"admin_key": "a key as written"}) == "a key as written"
    assert key({"admin_key": "env:ADMIN"}) == "a key from elsewhere"


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({}, "ADMIN is not set"),
        ({"ADMIN": ""}, "ADMIN is empty"),
        ({"ADMIN": "short"}, "must have at least 16"),
    ],
)
def test_a_weak_admin_key_in_the_environment_is_rejected(
    environ: dict[str, str], problem: str
) -> None:
    """A missing or short key would be no protection."""
    with pytest.raises(ConfigError, match=f"^gateway: admin_key: {problem}"):
        resolve_gateway(parse_gateway({"admin_key": "env:ADMIN"}), environ)


def test_default_waits_are_short_for_interactive_and_long_for_batch() -> None:
    """The default queue has a short and a long limit."""
    entry = parse_entry(SIM)
    queue = entry.queue
    assert (queue.max_wait_s, queue.batch_max_wait_s, queue.max_requests) == (5, 600, 1000)
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
def test_waits_must_be_positive(fields: dict[str, object]) -> None:
    """A limit that no request could meet is a mistake."""
    with pytest.raises(ConfigError, match="should be greater than"):
        parse_entry(SIM | fields)


def test_an_answer_takes_an_hour_at_most_unless_the_entry_says_otherwise() -> None:
    """No request is held for ever; an entry may have no limit."""
    assert ServingOptions().timeout_s == 3600
    assert ServingOptions.model_validate({"timeout_s": None}).timeout_s is None
