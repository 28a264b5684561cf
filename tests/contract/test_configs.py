"""configs/*.yaml: each deploys what its comments promise."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from gateway.cluster.plan import Plan
from gateway.config.loader import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_config_is_valid(path: Path) -> None:
    """Our schema and Serve's accept the file."""
    models = load_config(path).models
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    assert {app.name for app in schema.applications} == {"gateway"} | {m.name for m in models}
    assert sum(1 + len(model.entry.adapters) for model in models) >= 2


def test_dev_fits_a_small_machine() -> None:
    """The development config needs no GPU and two CPUs, and listens on this machine only."""
    plan = Plan.of(load_config(CONFIGS / "dev.yaml"))
    document = yaml.safe_load((CONFIGS / "dev.yaml").read_text())
    router = document["applications"][0]["deployments"][0]
    assert plan.max_gpus == 0
    assert plan.max_cpus + router["ray_actor_options"]["num_cpus"] <= 2
    assert document["http_options"]["host"] == "127.0.0.1"
    assert [model.model for model in plan.models] == ["demo", "demo-embed"]


def test_adapters_are_beside_their_model() -> None:
    """One engine on the CPU answers to two names."""
    (model,) = load_config(CONFIGS / "adapters.yaml").models
    assert [adapter.name for adapter in model.entry.adapters] == ["demo-pirate"]
    assert (CONFIGS.parent / model.entry.adapters[0].source / "adapter_config.json").exists()


def test_sim_runs_several_replicas_of_two_models() -> None:
    """The simulated config needs hardly any resources, and has several replicas to route to."""
    plan = Plan.of(load_config(CONFIGS / "sim.yaml"))
    assert {model.engine for model in plan.models} == {"sim"}
    assert all(model.min_replicas >= 2 for model in plan.models)
    assert plan.max_cpus <= 1


PROD = CONFIGS / "prod.yaml"


def test_prod_is_a_realistic_deployment() -> None:
    """A large model on four GPUs, a small one that scales to 16, and embeddings on half a card."""
    large, small, embedding = Plan.of(load_config(PROD)).models
    document = yaml.safe_load(PROD.read_text())
    assert (large.gpus, large.placement, large.executor) == (4, "STRICT_PACK", "mp")
    assert (small.min_replicas, small.max_replicas) == (1, 16)
    assert "Embedding" in embedding.model
    assert embedding.gpus * embedding.min_replicas < 1
    assert document["http_options"]["host"] == "0.0.0.0"  # noqa: S104


def test_prod_is_worth_copying() -> None:
    """Keys are required, secrets are references, and every model says what it runs at a time."""
    deployment = load_config(PROD)
    (gateway, *models) = yaml.safe_load(PROD.read_text())["applications"]
    router = gateway["deployments"][0]
    settings = router["user_config"]
    assert settings["auth"]["projects"]
    assert settings["admin_key"].startswith("env:")
    assert settings["trusted_proxies"]
    assert "cors" not in settings
    assert not any("plain" in warning for warning in deployment.warnings)
    assert (router["num_replicas"], router["max_replicas_per_node"]) == (2, 1)
    for model in models:
        entry = model["args"]
        assert entry["engine_args"]["max_num_seqs"] <= 256
        assert entry["env"]["HF_TOKEN"].startswith("env:")
        assert {"HF_HOME", "VLLM_CACHE_ROOT"} <= entry["env"].keys()
        assert entry["timeout_s"]
    assert set(settings["aliases"].values()) == {model["args"]["name"] for model in models}
