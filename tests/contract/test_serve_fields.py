"""Every field of Serve's config: accepted, or refused with the reason."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import schema

from gateway.config.document_reader import SET_BY_ENTRY
from gateway.config.loader import load_config
from gateway.config.serve_fields import ACCEPTED, REFUSED
from gateway.errors.startup import ConfigError

PARTS = {
    "file": schema.ServeDeploySchema,
    "http_options": schema.HTTPOptionsSchema,
    "grpc_options": schema.gRPCOptionsSchema,
    "application": schema.ServeApplicationSchema,
    "router": schema.DeploymentSchema,
    "model": schema.DeploymentSchema,
    "ray_actor_options": schema.RayActorOptionsSchema,
}
GOOD: dict[str, Any] = {
    "proxy_location": "EveryNode",
    "http_options": {"host": "127.0.0.1", "port": 8000, "keep_alive_timeout_s": 90},
    "grpc_options": {"port": 9000, "request_timeout_s": None, "enable_reflection": True},
    "controller_options": {"runtime_env": {"env_vars": {"A": "b"}}},
    "logging_config": {"log_level": "DEBUG"},
    "applications": [
        {
            "name": "gateway",
            "import_path": "deployments.app:gateway",
            "route_prefix": "/",
            "runtime_env": {"env_vars": {"A": "b"}},
            "logging_config": {"log_level": "DEBUG"},
            "args": {},
            "deployments": [
                {
                    "name": "Router",
                    "num_replicas": 2,
                    "user_config": {"max_body_mb": 8, "auth": "none"},
                    "graceful_shutdown_wait_loop_s": 1.0,
                    "graceful_shutdown_timeout_s": 60.0,
                    "health_check_period_s": 2.0,
                    "health_check_timeout_s": 30.0,
                    "max_replicas_per_node": 1,
                    "logging_config": {"enable_access_log": False},
                    "rolling_update_percentage": 0.5,
                    "max_surge_percent": 50,
                    "ray_actor_options": {
                        "num_cpus": 1,
                        "num_gpus": 0,
                        "memory": 1e9,
                        "resources": {"a": 1},
                        "label_selector": {"a": "b"},
                        "runtime_env": {"env_vars": {"A": "b"}},
                    },
                }
            ],
        },
        {
            "name": "m",
            "import_path": "deployments.app:model",
            "route_prefix": None,
            "args": {"name": "m", "engine": "sim"},
            "deployments": [
                {
                    "name": "Engine",
                    "graceful_shutdown_wait_loop_s": 1.0,
                    "health_check_period_s": 2.0,
                    "health_check_timeout_s": 30.0,
                    "logging_config": {"log_level": "DEBUG"},
                    "max_surge_percent": 0,
                }
            ],
        },
    ],
}
WRONG: dict[str, dict[str, object]] = {
    "file": {"tracing_config": {"enabled": True}, "target_capacity": 50},
    "http_options": {
        "root_path": "/llm",
        "request_timeout_s": 30,
        "ssl_keyfile": "key.pem",
        "ssl_certfile": "cert.pem",
        "ssl_keyfile_password": "secret",
        "ssl_ca_certs": "ca.pem",
    },
    "grpc_options": {"grpc_servicer_functions": ["module:add"]},
    "application": {
        "host": "127.0.0.1",
        "port": 9000,
        "autoscaling_policy": {"policy_function": "module:policy"},
        "external_scaler_enabled": True,
    },
    "router": {
        "max_ongoing_requests": 10,
        "max_queued_requests": 10,
        "backpressure_config": {"status_code": 429},
        "placement_group_bundles": [{"CPU": 1}],
        "placement_group_strategy": "SPREAD",
        "placement_group_bundle_label_selector": [{"a": "b"}],
        "gang_scheduling_config": {"gang_size": 2},
        "request_router_config": {"request_router_class": "module:Router"},
        "deployment_actors": [{"name": "a", "actor_class": "module:Actor"}],
    },
    "model": {
        "max_ongoing_requests": 10,
        "max_queued_requests": 10,
        "backpressure_config": {"status_code": 429},
        "deployment_actors": [{"name": "a", "actor_class": "module:Actor"}],
        "rolling_update_percentage": 0.5,
    },
}
REFUSALS = [(part, field) for part, fields in REFUSED.items() for field in fields]


def part_of(document: dict[str, Any], part: str) -> dict[str, Any]:
    """The part of a document in which fields are set."""
    front, model = document["applications"]
    parts: dict[str, dict[str, Any]] = {
        "file": document,
        "http_options": document["http_options"],
        "grpc_options": document["grpc_options"],
        "application": model,
        "router": front["deployments"][0],
        "model": model["deployments"][0],
    }
    return parts[part]


def problems(document: dict[str, Any], directory: Path) -> str:
    """What is wrong with a document; empty if nothing is."""
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump(document))
    try:
        load_config(file)
    except ConfigError as error:
        return error.message
    return ""


@pytest.mark.parametrize("part", PARTS)
def test_every_field_of_serve_has_been_decided_about(part: str) -> None:
    """A new release's field is in neither table, and fails here."""
    accepted, refused = set(ACCEPTED[part].split()), set(REFUSED.get(part, ()))
    by_entry = set(SET_BY_ENTRY.split()) if part == "model" else set()

    assert accepted | refused | by_entry == set(PARTS[part].model_fields)
    assert len(accepted) + len(refused) + len(by_entry) == len(PARTS[part].model_fields)


def test_accepted_fields_are_accepted_by_serve_and_by_us(tmp_path: Path) -> None:
    """A document that has nearly all of them."""
    assert problems(GOOD, tmp_path) == ""
    schema.ServeDeploySchema.model_validate(GOOD)


@pytest.mark.parametrize(("part", "field"), REFUSALS)
def test_a_field_that_cannot_be_honoured_is_refused_with_the_reason(
    part: str, field: str, tmp_path: Path
) -> None:
    """In one line that names it."""
    document = copy.deepcopy(GOOD)
    part_of(document, part)[field] = WRONG[part][field]

    (line,) = problems(document, tmp_path).splitlines()

    assert f"{field}: {REFUSED[part][field].reason}" in line


@pytest.mark.parametrize(("part", "field"), REFUSALS)
def test_a_refused_field_may_be_written_with_a_value_that_changes_nothing(
    part: str, field: str, tmp_path: Path
) -> None:
    """As tools write it that list every field."""
    for value in REFUSED[part][field].harmless:
        document = copy.deepcopy(GOOD)
        part_of(document, part)[field] = value
        assert problems(document, tmp_path) == ""


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("file", {"proxy_location": "Disabled"}, "no client could reach the gateway"),
        ("http_options", {"keep_alive_timeout_s": 200}, "must be at most 120"),
        ("router", {"logging_config": {"log_level": "DEBUG"}}, "enable_access_log: false"),
        ("router", {"logging_config": {"enable_access_log": True}}, "enable_access_log: false"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused(
    part: str, fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Although their fields are accepted."""
    document = copy.deepcopy(GOOD)
    part_of(document, part).update(fields)

    (line,) = problems(document, tmp_path).splitlines()

    assert message in line
