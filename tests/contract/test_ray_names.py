"""Ray's own names that configs may use: fields of Serve's schema, types of accelerators."""

import pytest
from ray.serve import schema
from ray.util import accelerators

from gateway.config.hardware import ACCELERATOR_TYPES
from gateway.config.serve_fields import known_fields


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("file", schema.ServeDeploySchema),
        ("http_options", schema.HTTPOptionsSchema),
        ("grpc_options", schema.gRPCOptionsSchema),
        ("application", schema.ServeApplicationSchema),
        ("deployment", schema.DeploymentSchema),
        ("ray_actor_options", schema.RayActorOptionsSchema),
    ],
)
def test_serve_fields_match_ray(kind: str, model: type[schema.BaseModel]) -> None:
    """The listed fields of Serve are those of the installed Ray."""
    assert set(known_fields(kind)) == set(model.model_fields)


def test_accelerator_types_are_rays() -> None:
    """Every Nvidia type that Ray knows by name is a shorthand."""
    nvidia = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}
    assert nvidia
    assert nvidia <= ACCELERATOR_TYPES
