"""Private and undocumented names of Ray, uvicorn and vLLM that we use: all exist.

The tables are compared with the code, so that they list exactly what it uses. A name that a new
version has renamed fails here first; in production it costs a warning and a slower way.
"""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.serve.handle import DeploymentHandle
from uvicorn import Server

from deployments.engine import EngineReplica
from deployments.engines.vllm.executor import IN_CORE
from deployments.router import Router
from tests.contract.with_vllm import run_script

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
INTERNALS = DEPLOYMENTS / "serve_internals"
VLLM = DEPLOYMENTS / "engines" / "vllm"

PRIVATE_OF_RAY = (
    "ray._private",
    "ray._raylet",
    "ray.autoscaler",
    "ray.experimental",
    "ray.serve._private",
    "ray.serve.context",
)
IMPORTS = {
    "ray.autoscaler.v2.schema": {"ClusterStatus", "NodeInfo", "ResourceDemandSummary"},
    "ray.autoscaler.v2.sdk": {"get_cluster_status"},
    "ray.experimental": {"internal_kv"},
    "ray.serve._private.common": {"RequestMetadata", "RequestProtocol"},
    "ray.serve._private.http_util": {"RequestIdMiddleware"},
    "ray.serve._private.logging_utils": {"get_serve_logs_dir"},
    "ray.serve._private.replica": {"Replica"},
    "ray.serve._private.tracing_utils": {"is_tracing_enabled"},
    "ray.serve.context": {"_get_global_client"},
    "uvicorn.config": {"HTTP_PROTOCOLS"},
    "uvicorn.middleware.proxy_headers": {"ProxyHeadersMiddleware"},
    "uvicorn.protocols.http.httptools_impl": {"HttpToolsProtocol", "RequestResponseCycle"},
}
"""Imports of `serve_internals` from modules that are private or undocumented."""
REPLICA = "ray.serve._private.replica:Replica"
UNDERSCORED = {
    "_app": "ray.serve._private.http_util:RequestIdMiddleware",
    "_deployment_config": REPLICA,
    "_fetch_replica_results_async": "ray.serve.handle:DeploymentBroadcastResponse",
    "_deployment_id": REPLICA,
    "_http_options": REPLICA,
    "_internal_kv_get": "ray.experimental:internal_kv",
    "_internal_kv_put": "ray.experimental:internal_kv",
    "_metrics_export_port": "ray._private.worker:init",
    "_metrics_manager": REPLICA,
    "_request_protocol": "ray.serve._private.common:RequestMetadata",
    "_route_prefix": REPLICA,
    "_run_user_code_in_separate_thread": "ray.serve._private.replica:UserCallableWrapper",
    "_start_request": REPLICA,
    "_user_callable_wrapper": REPLICA,
}
"""Underscored attributes and parameters that `serve_internals` uses, and what has them."""
ON_PRIVATE_OBJECTS = {
    REPLICA: {"max_queued_requests", "_direct_ingress_asgi"},
    "ray.autoscaler.v2.schema:ClusterStatus": {
        "active_nodes",
        "idle_nodes",
        "pending_launches",
        "pending_nodes",
        "resource_demands",
    },
    "ray.autoscaler.v2.schema:LaunchRequest": {"count"},
    "ray.autoscaler.v2.schema:NodeInfo": {"available_resources", "node_id", "total_resources"},
    "ray.autoscaler.v2.schema:ResourceDemandSummary": {
        "placement_group_demand",
        "ray_task_actor_demand",
    },
    "ray.serve._private.client:ServeControllerClient": {"get_serve_details", "http_config"},
    "ray.serve._private.common:DeploymentID": {"app_name", "name"},
    "ray.serve._private.config:DeploymentConfig": {"logging_config"},
    "ray.serve._private.replica_result:ReplicaResult": {"get_async"},
    "uvicorn.middleware.proxy_headers:ProxyHeadersMiddleware": {"app"},
    "uvicorn.protocols.http.flow_control:FlowControl": {"write_paused"},
    "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": {
        *("chunked_encoding", "disconnected", "flow", "response_complete", "response_started"),
        *("send", "transport"),
    },
    "uvicorn.server:ServerState": {"connections", "tasks"},
}
"""Attributes without an underscore, of objects that are private or undocumented."""
INHERITED = {
    "RouterProtocol": (
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
        {"__init__", "app", "connection_made"},
    ),
    "ResettableProtocol": (
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
        {"on_message_begin", "transport"},
    ),
    "EmbeddedServer": ("uvicorn:Server", {"server_state", "shutdown"}),
}
"""Attributes that subclasses of uvicorn's classes use of these, by `self` or by `super()`."""
LOOKED_UP = {"loop", "scope"}
"""Attributes of uvicorn's protocol that are used only if it has them."""
RECORDED = {
    "record_request_metrics": {"route", "latency_ms", "is_error", "exception_type"},
    "record_ingress_request_metrics": {
        *("protocol", "method", "route", "app_name", "deployment_name", "latency_ms"),
        *("is_error", "status_code"),
    },
}
"""Methods of Serve's metrics manager, and the parameters that we pass."""


def trees(folder: Path) -> Iterator[ast.Module]:
    """The modules of a folder, parsed."""
    for file in sorted(folder.glob("*.py")):
        yield ast.parse(file.read_text())


def imported(folder: Path, *roots: str) -> dict[str, set[str]]:
    """Names that a folder's modules import from modules below some others, by module."""
    found: dict[str, set[str]] = {}
    for tree in trees(folder):
        for node in ast.walk(tree):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and any(module == root or module.startswith(f"{root}.") for root in roots):
                assert isinstance(node, ast.ImportFrom)
                found.setdefault(module, set()).update(alias.name for alias in node.names)
    return found


def underscored(folder: Path) -> set[str]:
    """Underscored attributes of other objects, and underscored arguments, in a folder's modules."""
    nodes = [node for tree in trees(folder) for node in ast.walk(tree)]
    attributes = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    }
    arguments = {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    return {name for name in attributes | arguments if name[0] == "_" and name[:2] != "__"}


def inherited(folder: Path) -> dict[str, set[str]]:
    """Attributes that each class of a folder uses by `super()`, or by `self` and does not have."""
    classes = (
        node
        for tree in trees(folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.bases
    )
    return {each.name: _inherited(each) for each in classes}


def _inherited(each: ast.ClassDef) -> set[str]:
    attributes = [node for node in ast.walk(each) if isinstance(node, ast.Attribute)]
    by_self = {node.attr for node in attributes if ast.unparse(node.value) == "self"}
    by_super = {
        node.attr
        for node in attributes
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
    }
    own = {
        node.attr
        for node in attributes
        if isinstance(node.ctx, ast.Store) and node.attr.startswith("_")
    }
    for node in each.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            own.add(ast.unparse(node.target))
    return by_super | (by_self - own)


def resolved(path: str) -> Any:
    """The object at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def has(owner: Any, name: str) -> bool:
    """Whether a class, module or function has an attribute, sets one, or takes a parameter."""
    if hasattr(owner, name) or name in getattr(owner, "__annotations__", {}):
        return True
    if dataclasses.is_dataclass(owner) and name in {f.name for f in dataclasses.fields(owner)}:
        return True
    if inspect.isfunction(owner):
        return f'"{name}"' in inspect.getsource(owner)
    return any(
        f"self.{name}" in inspect.getsource(base)
        for base in inspect.getmro(owner)
        if base is not object and not base.__module__.startswith(("asyncio", "typing", "abc"))
    )


def test_the_tables_list_what_serve_internals_uses() -> None:
    """A private name that comes or goes in the code comes or goes here."""
    assert imported(INTERNALS, *PRIVATE_OF_RAY, "uvicorn") == IMPORTS
    assert underscored(INTERNALS) == UNDERSCORED.keys()
    used = inherited(INTERNALS)
    assert {name: used[name] for name in INHERITED} == {n: u for n, (_, u) in INHERITED.items()}


@pytest.mark.parametrize(("module", "names"), IMPORTS.items(), ids=IMPORTS)
def test_imported_names_exist(module: str, names: set[str]) -> None:
    """In the installed version."""
    found = importlib.import_module(module)
    assert [name for name in sorted(names) if not hasattr(found, name)] == []


@pytest.mark.parametrize(("name", "owner"), UNDERSCORED.items(), ids=UNDERSCORED)
def test_underscored_attributes_exist(name: str, owner: str) -> None:
    """In the installed version."""
    assert has(resolved(owner), name)


@pytest.mark.parametrize(("owner", "names"), ON_PRIVATE_OBJECTS.items(), ids=ON_PRIVATE_OBJECTS)
def test_attributes_of_private_objects_exist(owner: str, names: set[str]) -> None:
    """In the installed version."""
    assert [name for name in sorted(names) if not has(resolved(owner), name)] == []


@pytest.mark.parametrize(("owner", "names"), INHERITED.values(), ids=INHERITED)
def test_inherited_attributes_exist(owner: str, names: set[str]) -> None:
    """In the installed version."""
    assert [name for name in sorted(names) if not has(resolved(owner), name)] == []


def test_looked_up_attributes_exist() -> None:
    """uvicorn's protocol has what we use only where it is there."""
    protocol = resolved("uvicorn.protocols.http.httptools_impl:HttpToolsProtocol")
    assert [name for name in sorted(LOOKED_UP) if not has(protocol, name)] == []


def test_uvicorn_calls_what_we_override() -> None:
    """A server that we embed must not install signal handlers of its own."""
    assert "self.capture_signals()" in inspect.getsource(Server.serve)
    assert has(Server, "servers")


@pytest.mark.parametrize(("method", "names"), RECORDED.items(), ids=RECORDED)
def test_serve_s_metrics_take_what_we_record(method: str, names: set[str]) -> None:
    """The parameters are those of the installed version."""
    manager = resolved("ray.serve._private.replica:ReplicaMetricsManager")
    inspect.signature(getattr(manager, method)).bind(None, **dict.fromkeys(names))


def test_serve_counts_a_request_by_its_metadata() -> None:
    """`_start_request` takes one argument beside the replica."""
    inspect.signature(resolved(REPLICA)._start_request).bind(None, object())


def test_serve_calls_the_methods_that_it_finds_by_name() -> None:
    """Serve looks for these methods of our deployments, by names that it keeps to itself."""
    constants = importlib.import_module("ray.serve._private.constants")
    replica = importlib.import_module("ray.serve._private.replica")
    assert hasattr(Router, replica.SERVE_BUILD_ASGI_APP_METHOD)
    assert hasattr(EngineReplica, constants.RECORD_REPLICA_METADATA_METHOD)


def test_serve_reads_an_engines_load_where_it_changes() -> None:
    """In the event loop: it would call a plain method in a thread."""
    assert inspect.iscoroutinefunction(EngineReplica.record_autoscaling_stats)


def test_an_option_of_a_handle_starts_the_request_router() -> None:
    """`start_request_router` relies on it: nothing else makes Serve publish replicas."""
    made: list[object] = []

    def create_router(**options: object) -> None:
        made.append(options)

    handle = DeploymentHandle("Engine", "app", _create_router=create_router)
    handle.options(method_name="ping")

    assert len(made) == 1


def test_a_raylet_is_told_its_directory() -> None:
    """`scrape_targets` finds a cluster's metrics agents by this argument."""
    services = importlib.import_module("ray._private.services")
    assert "--session_dir=" in inspect.getsource(services)


# vLLM. Importing it changes much, so its names are looked up in a process of its own.

VLLM_INHERITED = {
    "ObservedLLM": (
        "vllm.v1.engine.async_llm:AsyncLLM",
        {
            *("add_request", "encode", "engine_core", "generate", "model_config"),
            *("pause_generation", "renderer", "reset_prefix_cache", "sleep", "vllm_config"),
        },
    ),
    "RayMetricsLogger": ("vllm.v1.metrics.ray_wrappers:RayPrometheusStatLogger", {"record"}),
    "PolicedConnector": (
        "vllm.multimodal.media:MediaConnector",
        {"__init__", "load_from_url", "load_from_url_async"},
    ),
    "AliasedModels": (
        "vllm.entrypoints.openai.models.serving:OpenAIServingModels",
        {"is_base_model", "lora_requests", "model_name"},
    ),
}
"""Attributes that subclasses of vLLM's classes use of these, by `self` or by `super()`."""
VLLM_ATTRIBUTES = {
    "vllm.config:VllmConfig": {
        *("cache_config", "kv_transfer_config", "model_config", "parallel_config"),
        *("scheduler_config", "speculative_config", "structured_outputs_config"),
    },
    "vllm.config:KVTransferConfig": {
        *("kv_connector", "kv_connector_extra_config", "kv_connector_module_path"),
    },
    "vllm.config:SpeculativeConfig": {"method", "suffix_decoding_max_cached_requests"},
    "vllm.config:CacheConfig": {
        *("block_size", "enable_prefix_caching", "kv_cache_size_tokens", "num_gpu_blocks"),
    },
    "vllm.config:ModelConfig": {
        *("get_vocab_size", "is_multimodal_model", "max_model_len", "renderer_num_workers"),
        *("runner_type",),
    },
    "vllm.config:ParallelConfig": {"data_parallel_size", "distributed_executor_backend"},
    "vllm.config:SchedulerConfig": {"max_num_batched_tokens", "max_num_seqs", "policy"},
    "vllm.connections:HTTPConnection": {"async_get_bytes", "get_async_client", "get_bytes"},
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels": {"resolve_lora"},
    "vllm.lora.request:LoRARequest": {"lora_name"},
    "vllm.renderers.base:BaseRenderer": {
        *("_executor", "_process_multimodal", "_process_multimodal_async"),
    },
    "vllm.renderers.chat_utils:BaseMultiModalItemTracker": {"_validate_add"},
    "vllm.sampling_params:SamplingParams": {
        *("_validate_structured_outputs", "output_kind", "structured_outputs"),
    },
    "vllm.sampling_params:StructuredOutputsParams": {
        *("all_constraints_none", "json", "json_object"),
    },
    "vllm.utils.registry:ExtensionManager": {"register"},
    "vllm.v1.structured_output:StructuredOutputManager": {
        *("_use_async_grammar_compilation", "backend", "grammar_init", "tokenizer"),
    },
    "vllm.v1.structured_output.backend_types:StructuredOutputBackend": {"allocate_token_bitmask"},
    "vllm.v1.structured_output.backend_types:StructuredOutputGrammar": {
        *("accept_tokens", "fill_bitmask", "is_terminated"),
    },
    "vllm.v1.structured_output.request:StructuredOutputRequest": {
        *("from_sampling_params", "grammar"),
    },
    "vllm.outputs:RequestOutput": {"finished", "metrics", "num_cached_tokens", "outputs"},
    "vllm.outputs:CompletionOutput": {"finish_reason", "index", "text", "token_ids"},
    "vllm.outputs:PoolingRequestOutput": {"finished", "num_cached_tokens"},
    "vllm.v1.engine.async_llm:AsyncLLM": {
        *("add_lora", "check_health", "engine_core", "from_vllm_config", "get_supported_tasks"),
        *("input_processor", "model_config", "output_processor", "remove_lora", "renderer"),
        *("shutdown", "vllm_config"),
    },
    "vllm.v1.engine:EngineCoreOutput": {"finish_reason", "request_id"},
    "vllm.v1.engine:EngineCoreOutputs": {"outputs"},
    "vllm.v1.engine:EngineCoreRequest": {
        *("cache_salt", "pooling_params", "request_id", "resumable"),
    },
    "vllm.v1.engine.core_client:AsyncMPClient": {
        *("abort_requests_async", "add_request_async", "get_output_async"),
    },
    "vllm.v1.engine.input_processor:InputProcessor": {"process_inputs", "process_inputs_async"},
    "vllm.v1.engine.output_processor:OutputProcessor": {"external_req_ids", "request_states"},
    "vllm.v1.engine.output_processor:RequestState": {
        *("is_prefilling", "num_cached_tokens", "stats"),
    },
    "vllm.v1.metrics.stats:RequestStateStats": {"first_token_ts", "scheduled_ts"},
    "vllm.v1.metrics.stats:SchedulerStats": {
        *("kv_cache_usage", "num_waiting_reqs"),
    },
}
"""Attributes of vLLM's objects that we use."""
VLLM_VARIABLES = {
    *("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_AUDIO_FETCH_TIMEOUT", "VLLM_IMAGE_FETCH_TIMEOUT"),
    *("VLLM_MAX_COMPLETION_PROMPTS", "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "VLLM_MAX_N_SEQUENCES"),
    *("VLLM_MEDIA_CONNECTOR", "VLLM_MEDIA_FETCH_MAX_RETRIES", "VLLM_MEDIA_URL_ALLOW_REDIRECTS"),
    *("VLLM_USE_MODELSCOPE", "VLLM_VIDEO_FETCH_TIMEOUT"),
}

SCRIPT = """
import importlib, json, sys
from tests.contract.test_private_names import has, resolved
imports, attributes, variables = json.loads(sys.argv[1])
missing = [f"{module}:{name}" for module, names in imports.items() for name in names
           if not hasattr(importlib.import_module(module), name)]
missing += [f"{owner}.{name}" for owner, names in attributes for name in names
            if not has(resolved(owner), name)]
envs = importlib.import_module("vllm.envs").environment_variables
missing += [name for name in variables if name not in envs]
print("missing:", *missing)
"""


def test_the_table_lists_what_our_subclasses_of_vllm_use() -> None:
    """An override that comes or goes in the code comes or goes here."""
    used = inherited(VLLM)
    assert {name: used[name] for name in VLLM_INHERITED} == {
        name: names for name, (_, names) in VLLM_INHERITED.items()
    }


def test_only_one_package_imports_vllm() -> None:
    """Its module paths move between releases."""
    folders = {file.parent for file in DEPLOYMENTS.rglob("*.py")}
    others = [folder for folder in folders if not folder.is_relative_to(VLLM)]
    assert [folder for folder in others if imported(folder, "vllm")] == []


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")
def test_vllm_has_every_name_that_we_use() -> None:
    """Imports, attributes, overridden methods and variables, in the installed version."""
    imports: dict[str, list[str]] = {}
    for folder in (VLLM, VLLM / "api"):
        for module, found in imported(folder, "vllm").items():
            imports[module] = sorted({*imports.get(module, []), *found})
    module, _, name = IN_CORE.rpartition(".")
    imports[module] = [*imports.get(module, []), name]
    owners = [*VLLM_ATTRIBUTES.items(), *VLLM_INHERITED.values()]
    tables = json.dumps([imports, [(o, sorted(n)) for o, n in owners], sorted(VLLM_VARIABLES)])
    ended = run_script(SCRIPT, tables)
    assert ended.stdout.splitlines()[-1:] == ["missing:"], ended.stderr[-2000:]
