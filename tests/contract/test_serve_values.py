"""Values of Serve's fields: `gateway check` refuses all that Serve refuses.

Where it refuses more, the reason is listed.
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._common.ray_option_utils import validate_actor_options
from ray.serve import schema
from ray.serve.config import AutoscalingConfig

from gateway.config.serve_fields import ACCEPTED, REFUSED
from gateway.config.serve_values import RULES
from tests.contract.test_serve_fields import GOOD, part_of, problems

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*metrics_interval_s:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*metrics_interval_s:DeprecationWarning"),
]
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    0.5,
    0.00001,
    1e400,
    70_000,
    10**400,
    "",
    "abc",
    "auto",
    [],
    ["abc"],
    {},
    {"abc": 1},
    {"abc": "def"},
    {"abc": None},
    {"-": "x"},
    {"a": "in("},
    {"CPU": 1},
    {"env_vars": {"A": 1}},
    {"env_vars": None},
    {"working_dir": "here"},
    {"py_modules": None},
    {"runtime_env": {"pip": ["x"]}},
    {"runtime_env": None},
    {"enable_access_log": None},
    {"enable_access_log": False, "log_level": "LOUD"},
    {"enable_access_log": False, "log_level": 15},
    {"enable_access_log": False, "encoding": "XML"},
    {"enable_access_log": False, "additional_log_standard_attrs": ["x"]},
    {"enable_access_log": False, "unknown": 1},
    [{"label_selector": {"a": "-"}}],
    [{}],
)
"""Values to set each field to."""
FIELDS = [
    (part, field)
    for part, fields in ACCEPTED.items()
    for field in fields.split()
    if field not in {"applications", "deployments"}
]
SCALING = sorted(AutoscalingConfig.model_fields)
_NO_PORTS = (0, -1, 70_000, 10**400)
STRICTER: dict[tuple[str, str], tuple[object, ...]] = {
    ("http_options", "host"): ("",),
    ("http_options", "port"): _NO_PORTS,
    ("http_options", "keep_alive_timeout_s"): _NO_PORTS,
    ("grpc_options", "port"): _NO_PORTS,
    ("grpc_options", "request_timeout_s"): (0, -1),
    ("grpc_options", "enable_reflection"): (0, 1),
    ("application", "route_prefix"): (None, "", "abc", "auto"),  # the gateway's must be `/`
    ("router", "name"): ("", "abc", "auto"),
    ("model", "name"): ("", "abc", "auto"),
    ("router", "num_replicas"): (70_000, 10**400),
    ("router", "max_replicas_per_node"): _NO_PORTS,  # Serve refuses them later
    ("ray_actor_options", "accelerator_type"): ("",),
}
"""What `gateway check` refuses although Serve accepts it, because it cannot be meant.

Everywhere, it also refuses switches for numbers, infinity, and keys that Serve would ignore.
"""


def is_refused_by_serve(document: dict[str, Any]) -> bool:
    """Whether Serve refuses a document, at once or when it makes the deployments."""
    try:
        valid = schema.ServeDeploySchema.model_validate(document)
        for application in valid.applications:
            for deployment in application.deployments:
                options = deployment.ray_actor_options
                if isinstance(options, schema.RayActorOptionsSchema):
                    validate_actor_options(options.model_dump(exclude_unset=True), in_options=True)
                scaling = deployment.autoscaling_config
                if isinstance(scaling, dict):
                    AutoscalingConfig(**scaling)
    except (ValueError, TypeError, AttributeError, OverflowError):
        return True
    return False


def place_of(document: dict[str, Any], part: str) -> dict[str, Any]:
    """The part of a document in which fields are set."""
    router = part_of(document, "router")
    return router["ray_actor_options"] if part == "ray_actor_options" else part_of(document, part)


def variants(part: str, field: str) -> Iterator[tuple[object, dict[str, Any]]]:
    """Documents with each of the values in one field."""
    for value in VALUES:
        document = copy.deepcopy(GOOD)
        if part == "application":  # the gateway's: a model's `args` are an entry
            document["applications"][0][field] = copy.deepcopy(value)
        elif field == "autoscaling_config":
            del part_of(document, "router")["num_replicas"]
            part_of(document, "router")[field] = copy.deepcopy(value)
        else:
            place_of(document, part)[field] = copy.deepcopy(value)
        yield value, document


@pytest.mark.parametrize(("part", "field"), FIELDS)
def test_what_serve_refuses_is_refused(part: str, field: str, tmp_path: Path) -> None:
    """Each value in each field that is accepted."""
    missed = [
        value
        for value, document in variants(part, field)
        if is_refused_by_serve(document) and not problems(document, tmp_path)
    ]
    assert missed == []


@pytest.mark.parametrize("field", SCALING)
def test_what_autoscaling_refuses_is_refused(field: str, tmp_path: Path) -> None:
    """Serve refuses it only once the application is built."""
    missed = []
    for value in VALUES:
        document = copy.deepcopy(GOOD)
        router = part_of(document, "router")
        del router["num_replicas"]
        router["autoscaling_config"] = {"max_replicas": 2, field: copy.deepcopy(value)}
        if is_refused_by_serve(document) and not problems(document, tmp_path):
            missed.append(value)
    assert missed == []


def test_every_accepted_field_has_a_rule() -> None:
    """Except for those that the loader reads itself."""
    read_by_loader = {"name", "applications", "deployments", "http_options", "grpc_options"}
    for part, fields in ACCEPTED.items():
        rules = RULES["deployment" if part in {"router", "model"} else part]
        assert set(fields.split()) - set(rules) <= read_by_loader


@pytest.mark.parametrize("part", REFUSED)
def test_serve_accepts_what_is_harmless_in_a_refused_field(part: str) -> None:
    """Otherwise the file would pass, and not start."""
    refused = []
    for field, refusal in REFUSED[part].items():
        for value in refusal.harmless:
            document = copy.deepcopy(GOOD)
            place_of(document, part)[field] = copy.deepcopy(value)
            if is_refused_by_serve(document):
                refused.append((field, value))
    assert refused == []


@pytest.mark.parametrize(("part", "field"), FIELDS)
def test_what_is_refused_besides_is_listed(part: str, field: str, tmp_path: Path) -> None:
    """A valid file must not be refused by accident."""
    listed = STRICTER.get((part, field), ())
    unlisted = [
        value
        for value, document in variants(part, field)
        if not isinstance(value, bool | dict)
        and value != math.inf
        and value not in listed
        and problems(document, tmp_path)
        and not is_refused_by_serve(document)
    ]
    assert unlisted == []
