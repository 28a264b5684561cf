"""The applications a Serve config names: `model` and `gateway`.

applications:
  - {name: qwen3-8b, import_path: deployments.app:model, route_prefix: null, args: {...}}
  - {name: gateway, import_path: deployments.app:gateway, route_prefix: /}
"""

from typing import Any

from pydantic import JsonValue
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from deployments.autoscaling import LOOK_BACK_S, TELLING_S, EnginePolicy
from deployments.discovery import ENGINE_DEPLOYMENT, MODEL_DEPLOYMENT
from deployments.engine import Engine, Model
from deployments.placement import serve_options
from deployments.request_router import FleetRequestRouter
from deployments.router import Router
from gateway.cluster.rollover import MAX_SURGE_PERCENT
from gateway.config.loader import parse_entry
from gateway.config.model import ModelEntry

UNLIMITED = 1_000_000
"""Requests a deployment takes at a time: admission is the gateway's own work, not Serve's."""

STOP_MARGIN_S = 15
"""What stopping takes after the drain: the engine's processes have to end."""

START_ATTEMPTS = 3


def gateway(args: dict[str, JsonValue]) -> serve.Application:
    """The router in front of all models; its settings are the deployment's `user_config`."""
    if args:
        raise ValueError("the gateway takes no args: its settings are the Router's user_config")
    return serve.deployment(
        serve.ingress()(Router),
        name="Router",
        max_ongoing_requests=UNLIMITED,
        ray_actor_options={"num_cpus": 0.2},
        health_check_period_s=2,
        graceful_shutdown_timeout_s=600,
        max_surge_percent=MAX_SURGE_PERCENT,
        # A line per request is a tenth of what a router costs; HAProxy and the gateway count them.
        logging_config=LoggingConfig(enable_access_log=False),
    ).bind()


def model(args: dict[str, JsonValue]) -> serve.Application:
    """One model: its entry, always there, and the engines that run it."""
    entry = parse_entry(args)
    engine = serve.deployment(
        Engine,
        name=ENGINE_DEPLOYMENT,
        max_ongoing_requests=UNLIMITED,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=entry.drain_timeout_s + STOP_MARGIN_S,
        max_constructor_retry_count=START_ATTEMPTS,
        max_surge_percent=MAX_SURGE_PERCENT,
        request_router_config=RequestRouterConfig(request_router_class=FleetRequestRouter),
        **scale(entry),
        **serve_options(entry),
    ).bind(args)
    return serve.deployment(
        Model,
        name=MODEL_DEPLOYMENT,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=UNLIMITED,
        max_surge_percent=100,  # it takes no room, and is asked at any time
    ).bind(args, engine)


def scale(entry: ModelEntry) -> dict[str, Any]:
    """Serve's options for the number of replicas."""
    if entry.min_replicas == entry.max_replicas:
        return {"num_replicas": entry.max_replicas}
    scaling = entry.autoscaling
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scaling.min,
            max_replicas=scaling.max,
            # When a need is followed is the policy's own decision.
            upscale_delay_s=0,
            downscale_delay_s=0,
            metrics_interval_s=TELLING_S,
            look_back_period_s=LOOK_BACK_S,
            policy=AutoscalingPolicy(
                policy_function=EnginePolicy,
                policy_kwargs={
                    "target_utilization": scaling.target_utilization,
                    "max_wait_s": scaling.max_wait_s,
                    "scale_down_delay_s": scaling.scale_down_delay_s,
                },
            ),
        )
    }
