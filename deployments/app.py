"""Serve applications that a Serve config names: `model` and `gateway`.

applications:
  - {name: qwen3-8b, import_path: deployments.app:model, route_prefix: null, args: {...}}
  - {name: gateway, import_path: deployments.app:gateway, route_prefix: /}
"""

from collections.abc import Callable
from typing import Any

from pydantic import JsonValue
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from deployments.accounts import Accounts
from deployments.autoscaling import LOOK_BACK_S, REPORT_PERIOD_S, EngineScalingPolicy
from deployments.batches import Batches
from deployments.discovery import ENGINE_DEPLOYMENT, MODEL_DEPLOYMENT
from deployments.engine import EngineReplica, ModelIngress
from deployments.placement import serve_options
from deployments.router import Router
from deployments.serve_internals.serve_request_router import PublishingRequestRouter
from deployments.state import State
from gateway.cluster.rollover import MAX_SURGE_PERCENT
from gateway.config.document_reader import ACCOUNTS_ARGUMENT, STATE_ARGUMENT
from gateway.config.loader import parse_accounts, parse_entry, parse_state
from gateway.config.model import ModelEntry
from gateway.errors.startup import ConfigError

UNLIMITED = 1_000_000
"""Requests a deployment accepts at a time: the gateway limits them itself, not Serve."""

STOP_MARGIN_S = 15
"""Time for the engine's processes to end, after the drain."""

START_ATTEMPTS = 3
KEEPER_CPUS = 0.02
"""Of the CPUs that Ray counts: little enough for a machine with two, beside its engines."""

QUIET = LoggingConfig(enable_access_log=False)
"""Logging without a line per call: for routers a tenth of their CPU time, for the others, which
are asked for their state every few seconds, nothing but noise."""


def gateway(args: dict[str, JsonValue]) -> serve.Application:
    """Application of the routers in front of all models, configured by its `user_config`.

    `args`: `accounts`, if projects, keys and usage are kept in a database; `state`, if files,
    batches and responses are kept for projects.
    """
    if unknown := args.keys() - {ACCOUNTS_ARGUMENT, STATE_ARGUMENT}:
        raise ValueError(
            f"application `gateway` does not know {', '.join(sorted(unknown))}: set the Router's"
            " user_config instead"
        )
    accounts, state = args.get(ACCOUNTS_ARGUMENT), args.get(STATE_ARGUMENT)
    router = serve.deployment(
        serve.ingress()(Router),
        name="Router",
        max_ongoing_requests=UNLIMITED,
        ray_actor_options={"num_cpus": 0.2},
        health_check_period_s=2,
        graceful_shutdown_timeout_s=600,
        max_surge_percent=MAX_SURGE_PERCENT,
        logging_config=QUIET,
    )
    keeper = None if accounts is None else _accounts(accounts)
    return router.bind(
        keeper,
        None if state is None else _state(state, accounts, keeper),
        keeps_responses=state is not None and parse_state(state).responses.store,
    )


def _accounts(config: JsonValue) -> serve.Application:
    _check(parse_accounts, config)
    return _keeper(Accounts, "Accounts").bind(config)


def _state(
    config: JsonValue, accounts: JsonValue, keeper: serve.Application | None
) -> serve.Application:
    """`State`, and `Batches` beside it; `keeper`: `Accounts`, if there is one."""
    _check(parse_state, config)
    batches = _keeper(Batches, "Batches").bind(config, accounts, keeper)
    return _keeper(State, "State").bind(config, accounts, batches)


def _keeper(kind: type[object], name: str) -> serve.Deployment:
    """A deployment with one replica that keeps something."""
    return serve.deployment(
        kind,
        name=name,
        max_ongoing_requests=UNLIMITED,
        ray_actor_options={"num_cpus": KEEPER_CPUS},
        health_check_period_s=2,
        graceful_shutdown_timeout_s=STOP_MARGIN_S,
        max_surge_percent=100,  # two writers do no harm
        logging_config=QUIET,
    )


def _check(parse: Callable[[JsonValue], object], config: JsonValue) -> None:
    try:
        parse(config)
    except ConfigError as error:
        raise RayServeException(error.message) from None  # the only one without a traceback


def model(args: dict[str, JsonValue]) -> serve.Application:
    """Application of one model: its entry, which is always there, and its engines."""
    try:
        entry = parse_entry(args)
    except ConfigError as error:
        raise RayServeException(error.message) from None  # the only one without a traceback
    engine = serve.deployment(
        EngineReplica,
        name=ENGINE_DEPLOYMENT,
        max_ongoing_requests=UNLIMITED,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=entry.drain_timeout_s + STOP_MARGIN_S,
        max_constructor_retry_count=START_ATTEMPTS,
        max_surge_percent=MAX_SURGE_PERCENT,
        request_router_config=RequestRouterConfig(request_router_class=PublishingRequestRouter),
        logging_config=QUIET,
        **scale(entry),
        **serve_options(entry),
    ).bind(args)
    return serve.deployment(
        ModelIngress,
        name=MODEL_DEPLOYMENT,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=UNLIMITED,
        logging_config=QUIET,
        max_surge_percent=100,  # it needs no resources, and must answer at any time
    ).bind(args, engine)


def scale(entry: ModelEntry) -> dict[str, Any]:
    """Options of Serve for the number of an entry's engines."""
    if entry.min_replicas == entry.max_replicas:
        return {"num_replicas": entry.max_replicas}
    scaling = entry.autoscaling
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scaling.min,
            max_replicas=scaling.max,
            # The policy itself decides when to follow a change.
            upscale_delay_s=0,
            downscale_delay_s=0,
            metrics_interval_s=REPORT_PERIOD_S,
            look_back_period_s=LOOK_BACK_S,
            policy=AutoscalingPolicy(
                policy_function=EngineScalingPolicy,
                policy_kwargs={
                    "target_utilization": scaling.target_utilization,
                    "max_wait_s": scaling.max_wait_s,
                    "scale_down_delay_s": scaling.scale_down_delay_s,
                },
            ),
        )
    }
