"""Serve configs as files: every mistake is one clear line with its path."""

import pickle
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.deployment_file import DeploymentFile, RouterScale
from gateway.config.document_reader import SET_BY_ENTRY
from gateway.config.gateway import GatewayConfig
from gateway.config.loader import (
    load_config,
    parse_entry,
    parse_gateway,
)
from gateway.config.serve_fields import known_fields
from gateway.config.sim import SimEntry
from gateway.config.strict import FieldError
from gateway.config.vllm import VllmEntry
from gateway.errors.startup import ConfigError

GOOD = """\
http_options:
  host: 127.0.0.1
applications:
  - name: gateway
    import_path: deployments.app:gateway
    route_prefix: /
    deployments:
      - name: Router
        num_replicas: 2
        user_config:
          max_body_mb: 8
  - name: big
    import_path: deployments.app:model
    route_prefix: null
    args:
      name: org/big
      engine: vllm
      source: org/big
      max_model_len: 4096
      replicas: 2
      parallelism: {tensor: 4}
      accelerator: H100
      cpus_per_worker: 2
      env:
        NCCL_DEBUG: INFO
      engine_args:
        seed: 1
  - name: pretend
    import_path: deployments.app:model
    route_prefix: null
    args:
      name: pretend
      engine: sim
      autoscaling: {min: 1, max: 3}
      simulation:
        instant: true
"""

MAX_BODY = "max_body_mb: 8"
ENGINE_SIM = "      engine: sim\n"
CONFIG = '11: applications[0] "gateway": deployments[0].user_config'
BIG = 'applications[1] "big": args'
SIM = 'applications[2] "pretend": args'

WRONG = [
    # Serve's part of the file
    (
        "http_options:",
        "htp_options:",
        "1: htp_options: unknown field, did you mean `http_options`?",
    ),
    (
        "applications:",
        "aplications:",
        "3: aplications: unknown field, did you mean `applications`?",
    ),
    ("  host:", "  hots:", "2: http_options.hots: unknown field, did you mean `host`?"),
    (
        "\n  host: 127.0.0.1",
        " 127.0.0.1",
        '1: http_options: should be a mapping, found "127.0.0.1"',
    ),
    (
        "num_replicas:",
        "num_replica:",
        (
            '9: applications[0] "gateway": deployments[0].num_replica: unknown field,'
            " did you mean `num_replicas`?"
        ),
    ),
    (
        "num_replicas: 2",
        "ray_actor_options: {num_cpu: 1}",
        (
            '9: applications[0] "gateway": deployments[0].ray_actor_options.num_cpu: unknown field,'
            " did you mean `num_cpus`?"
        ),
    ),
    (
        "name: Router",
        "name: Rooter",
        '8: applications[0] "gateway": deployments[0].name: found "Rooter", did you mean `Router`?',
    ),
    (
        "name: pretend\n    import_path",
        "name: big\n    import_path",
        '28: applications[2] "big": name: "big" is already the name of applications[1]',
    ),
    (
        "app:model\n    route_prefix: null\n    args:\n      name: pretend",
        "app:model\n    args:\n      name: pretend",
        (
            '28: applications[2] "pretend": route_prefix: must be null:'
            " clients reach a model through the gateway"
        ),
    ),
    (
        "route_prefix: /",
        "route_prefix: /v2",
        '6: applications[0] "gateway": route_prefix: must be "/", found "/v2"',
    ),
    (
        "deployments.app:gateway",
        "deployments.app:gatway",
        (
            '5: applications[0] "gateway": import_path: unknown builder,'
            " did you mean `deployments.app:gateway`?"
        ),
    ),
    (
        "import_path: deployments.app:gateway",
        "import_path: other.app:builder",
        "3: applications: no application has `import_path: deployments.app:gateway`",
    ),
    (
        "    import_path: deployments.app:gateway\n",
        "",
        '4: applications[0] "gateway": import_path: is missing',
    ),
    (
        "    route_prefix: /\n",
        "    route_prefix: /\n    args: {max_body_mb: 8}\n",
        (
            '7: applications[0] "gateway": args.max_body_mb: unknown field:'
            " only `accounts` and `state` are set here, and all else in `user_config`"
        ),
    ),
    # The gateway config
    (
        "max_body_mb:",
        "max_body:",
        (
            '11: applications[0] "gateway": deployments[0].user_config.max_body: unknown field,'
            " did you mean `max_body_mb`?"
        ),
    ),
    (
        "max_body_mb: 8",
        "max_body_mb: -1",
        (
            '11: applications[0] "gateway": deployments[0].user_config.max_body_mb:'
            " should be greater than 0, found -1"
        ),
    ),
    # Names
    (
        MAX_BODY,
        "aliases: {gpt: org/bog}",
        (
            f'{CONFIG}.aliases.gpt: no model, adapter, alias or split is named "org/bog",'
            " did you mean `org/big`?"
        ),
    ),
    (MAX_BODY, "aliases: {a: b, b: a}", f"{CONFIG}.aliases.a: resolves to itself: a -> b -> a"),
    (MAX_BODY, "aliases: {a: a}", f"{CONFIG}.aliases.a: resolves to itself: a -> a"),
    (
        MAX_BODY,
        "aliases: {pretend: org/big}",
        f'{CONFIG}.aliases.pretend: "pretend" is already the model of applications[2]',
    ),
    (MAX_BODY, "aliases: {gpt: }", f"{CONFIG}.aliases.gpt: should be text, found null"),
    (
        MAX_BODY,
        "aliases: {4: pretend}",
        f'{CONFIG}.aliases.4: should be text, found 4 (put it in quotes: "4")',
    ),
    (
        MAX_BODY,
        "aliases: {'two words': pretend}",
        (f"{CONFIG}.aliases.two words: must be non-empty, without spaces or control characters"),
    ),
    (MAX_BODY, "aliases: [pretend]", f"{CONFIG}.aliases: should be a mapping, found a list"),
    (MAX_BODY, "splits: {chat: {models: {}}}", f"{CONFIG}.splits.chat.models: must not be empty"),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 0}}}",
        f"{CONFIG}.splits.chat.models.pretend: should be greater than 0, found 0",
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 90%}}}",
        f'{CONFIG}.splits.chat.models.pretend: should be a number, found "90%"',
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 9, org/bug: 1}}}",
        (
            f"{CONFIG}.splits.chat.models.org/bug: no model, adapter, alias or split is"
            ' named "org/bug", did you mean `org/big`?'
        ),
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 1, chat: 1}}}",
        f"{CONFIG}.splits.chat: resolves to itself: chat -> chat",
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 1}, shadw: null}}",
        f"{CONFIG}.splits.chat.shadw: unknown field, did you mean `shadow`?",
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 1}, shadow: {model: org/big, fraction: 0}}}",
        f"{CONFIG}.splits.chat.shadow.fraction: should be greater than 0, found 0",
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 1}, shadow: {model: org/big, fraction: 10}}}",
        f"{CONFIG}.splits.chat.shadow.fraction: should be less than or equal to 1, found 10",
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 1}, shadow: {model: org/big}}}",
        f"{CONFIG}.splits.chat.shadow.fraction: is missing",
    ),
    (
        MAX_BODY,
        (
            "splits: {chat: {models: {pretend: 1}, shadow: {modl: org/big, model: org/big,"
            " fraction: 1}}}"
        ),
        f"{CONFIG}.splits.chat.shadow.modl: unknown field, did you mean `model`?",
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 1}, shadow: {model: pretend, fraction: 1}}}",
        (f"{CONFIG}.splits.chat.shadow.model: the split itself sends requests to `pretend`"),
    ),
    (
        MAX_BODY,
        "splits: {chat: {models: {pretend: 1}, shadow: {model: pretendr, fraction: 1}}}",
        (
            f"{CONFIG}.splits.chat.shadow.model: no model, adapter, alias or split is named"
            ' "pretendr", did you mean `pretend`?'
        ),
    ),
    (
        MAX_BODY,
        "{splits: {chat: {models: {pretend: 1}}}, aliases: {chat: pretend}}",
        f"{CONFIG}.splits.chat: is also an alias",
    ),
    (
        MAX_BODY,
        "{splits: {chat: {models: {gpt: 1}}}, aliases: {gpt: chat}}",
        f"{CONFIG}.aliases.gpt: resolves to itself: gpt -> chat -> gpt",
    ),
    (MAX_BODY, "fallbacks: {pretend: []}", f"{CONFIG}.fallbacks.pretend: must not be empty"),
    (
        MAX_BODY,
        "fallbacks: {pretend: org/big}",
        f'{CONFIG}.fallbacks.pretend: should be a list, found "org/big"',
    ),
    (
        MAX_BODY,
        "fallbacks: {pretend: [pretend]}",
        (f"{CONFIG}.fallbacks.pretend[0]: `pretend` would fall back to itself: pretend -> pretend"),
    ),
    (
        MAX_BODY,
        "fallbacks: {pretend: [org/big], org/big: [pretend]}",
        (
            f"{CONFIG}.fallbacks.pretend[0]: `pretend` would fall back to itself: pretend ->"
            " org/big -> pretend"
        ),
    ),
    (
        MAX_BODY,
        "{fallbacks: {pretend: [gpt]}, aliases: {gpt: pretend}}",
        (
            f"{CONFIG}.fallbacks.pretend[0]: `pretend` would fall back to itself: pretend ->"
            " gpt -> pretend"
        ),
    ),
    (
        MAX_BODY,
        "{fallbacks: {gpt: [pretend]}, aliases: {gpt: pretend}}",
        f"{CONFIG}.fallbacks.gpt[0]: `pretend` is the same as `gpt`",
    ),
    (
        MAX_BODY,
        "fallbacks: {pretend: [org/big, org/big]}",
        f"{CONFIG}.fallbacks.pretend[1]: `org/big` appears twice",
    ),
    (
        MAX_BODY,
        "{fallbacks: {pretend: [gpt, org/big]}, aliases: {gpt: org/big}}",
        f"{CONFIG}.fallbacks.pretend[1]: `org/big` is the same as `gpt`",
    ),
    (
        MAX_BODY,
        "fallbacks: {pretend: [org/bik]}",
        (
            f"{CONFIG}.fallbacks.pretend[0]: no model, adapter, alias or split is named"
            ' "org/bik", did you mean `org/big`?'
        ),
    ),
    (
        MAX_BODY,
        "fallbacks: {pretned: [org/big]}",
        (
            f"{CONFIG}.fallbacks.pretned: no model, adapter, alias or split is named"
            ' "pretned", did you mean `pretend`?'
        ),
    ),
    (
        MAX_BODY,
        "aliasses: {gpt: pretend}",
        f"{CONFIG}.aliasses: unknown field, did you mean `aliases`?",
    ),
    # Model entries
    (
        "engine: vllm",
        "engine: vlm",
        '17: applications[1] "big": args.engine: found "vlm", did you mean `vllm`?',
    ),
    (
        "      engine: vllm\n",
        "",
        '15: applications[1] "big": args.engine: is missing; known: vllm, sim',
    ),
    ("      source: org/big\n", "", '15: applications[1] "big": args.source: is missing'),
    (
        "max_model_len:",
        "max_model_length:",
        (
            '19: applications[1] "big": args.max_model_length: unknown field,'
            " did you mean `max_model_len`?"
        ),
    ),
    (
        "max_model_len: 4096",
        "max_model_len: 4k",
        '19: applications[1] "big": args.max_model_len: should be a whole number, found "4k"',
    ),
    (
        "replicas: 2\n      p",
        "replicas: 0\n      p",
        '20: applications[1] "big": args.replicas: should be greater than or equal to 1, found 0',
    ),
    (
        "replicas: 2\n      p",
        "replicas: true\n      p",
        '20: applications[1] "big": args.replicas: should be a whole number, found true',
    ),
    (
        "replicas: 2\n      p",
        "replicas: 2\n      autoscaling: {max: 3}\n      p",
        f"20: {BIG}.replicas: cannot be combined with `autoscaling`: remove one of them",
    ),
    (
        "{tensor: 4}",
        "{tensor: 0}",
        (
            '21: applications[1] "big": args.parallelism.tensor:'
            " should be greater than or equal to 1, found 0"
        ),
    ),
    (
        "{tensor: 4}",
        "{tensr: 4}",
        '21: applications[1] "big": args.parallelism.tensr: unknown field, did you mean `tensor`?',
    ),
    (
        "parallelism: {tensor: 4}",
        "parallelism: 4",
        '21: applications[1] "big": args.parallelism: should be a mapping, found 4',
    ),
    (
        "{tensor: 4}",
        "{tensor: 16}",
        (
            '21: applications[1] "big": args.parallelism.tensor: 16 needs 16 GPUs on one node,'
            " but `accelerator.per_node` is 8; use `parallelism.pipeline` to span several nodes"
        ),
    ),
    (
        "{tensor: 4}",
        "{tensor: 3, pipeline: 3}",
        (
            '21: applications[1] "big": args.parallelism.tensor: 3 does not divide'
            " `accelerator.per_node` 8, so 9 workers on several nodes would split a pipeline stage"
        ),
    ),
    (
        "{tensor: 4}\n      accelerator: H100",
        "{pipeline: 2}\n      accelerator: cpu",
        '21: applications[1] "big": args.parallelism.pipeline: needs GPUs, not `accelerator: cpu`',
    ),
    (
        "accelerator: H100",
        "accelerator: h100",
        (
            '22: applications[1] "big": args.accelerator: found "h100", did you mean `H100`?'
            " (write a GPU type that is not listed as {kind: gpu, type: h100})"
        ),
    ),
    (
        "accelerator: H100",
        "accelerator: {type: h100}",
        '22: applications[1] "big": args.accelerator.type: should be spelled `H100`',
    ),
    (
        "accelerator: H100",
        "accelerator: {type: H100, pernode: 4}",
        (
            '22: applications[1] "big": args.accelerator.pernode: unknown field,'
            " did you mean `per_node`?"
        ),
    ),
    (
        "cpus_per_worker: 2",
        "cpus_per_worker: .inf",
        (
            '23: applications[1] "big": args.cpus_per_worker: should be a finite number,'
            " found Infinity"
        ),
    ),
    (
        "NCCL_DEBUG: INFO",
        "NCCL_DEBUG: 1",
        (
            '25: applications[1] "big": args.env.NCCL_DEBUG: should be text, found 1'
            ' (put it in quotes: "1")'
        ),
    ),
    (
        "NCCL_DEBUG: INFO",
        'CUDA_VISIBLE_DEVICES: "0"',
        (
            '25: applications[1] "big": args.env.CUDA_VISIBLE_DEVICES: is set by Ray:'
            " remove it from `env`"
        ),
    ),
    (
        "NCCL_DEBUG: INFO",
        "NCCL-DEBUG: INFO",
        '25: applications[1] "big": args.env.NCCL-DEBUG: is not a valid environment variable name',
    ),
    (
        "seed: 1",
        "tensor_parallel_size: 2",
        (
            '27: applications[1] "big": args.engine_args.tensor_parallel_size:'
            " is set by `parallelism.tensor`: remove it from `engine_args`"
        ),
    ),
    (
        "seed: 1",
        "served-model-name: x",
        (
            '27: applications[1] "big": args.engine_args.served-model-name:'
            " is set by `name`: remove it from `engine_args`"
        ),
    ),
    (
        "seed: 1",
        "ssl_keyfile: x",
        (
            '27: applications[1] "big": args.engine_args.ssl_keyfile:'
            " is decided by the replica's own HTTP server: remove it from `engine_args`"
        ),
    ),
    (
        "seed: 1",
        "max-num-seqs: 4",
        f"27: {BIG}.engine_args.max-num-seqs: should be written `max_num_seqs`",
    ),
    (
        "name: pretend\n      e",
        "name: org/big\n      e",
        (
            '32: applications[2] "pretend": args.name: "org/big" is already the model of'
            " applications[1]"
        ),
    ),
    (
        "name: pretend\n      e",
        "name: two words\n      e",
        (
            '32: applications[2] "pretend": args.name: must be non-empty,'
            " without spaces or control characters"
        ),
    ),
    (
        "{min: 1, max: 3}",
        "{min: 4, max: 3}",
        '34: applications[2] "pretend": args.autoscaling.min: 4 is more than `max` 3',
    ),
    (
        "instant: true",
        "instant: 1",
        '36: applications[2] "pretend": args.simulation.instant: should be true or false, found 1',
    ),
    (
        "instant: true",
        "kv_tokens: 1000",
        (
            '35: applications[2] "pretend": args.simulation.max_model_len:'
            " 32768 is more than `kv_tokens` 1000"
        ),
    ),
    (
        "      simulation:\n        instant: true\n",
        "      weights: org/big\n",
        f"35: {SIM}.weights: unknown field; known: {', '.join(SimEntry.model_fields)}",
    ),
    (
        "    route_prefix: null\n    args:\n      name: pretend",
        (
            "    route_prefix: null\n    deployments: [{name: Engine, num_replicas: 3}]\n"
            "    args:\n      name: pretend"
        ),
        (
            '31: applications[2] "pretend": deployments[0].num_replicas:'
            " is set by the entry in `args`: remove it"
        ),
    ),
    # Adapters, shares of a GPU, waits
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{source: legal}]\n",
        f"34: {SIM}.adapters[0].name: is missing",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{name: legal}]\n",
        f"34: {SIM}.adapters[0].source: is missing",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{name: legal, source: x, rank: 8}]\n",
        f"34: {SIM}.adapters[0].rank: unknown field; known: name, source",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: {name: legal, source: x}\n",
        f"34: {SIM}.adapters: should be a list, found a mapping",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{name: legal, source: x}, {name: legal, source: y}]\n",
        f"34: {SIM}.adapters[1].name: `legal` is also the name of adapters[0]",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{name: pretend, source: x}]\n",
        f"34: {SIM}.adapters[0].name: `pretend` is the model's own name",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{name: org/big, source: x}]\n",
        f'34: {SIM}.adapters[0].name: "org/big" is already the model of applications[1]',
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{name: legal, source: ''}]\n",
        f"34: {SIM}.adapters[0].source: must not be empty",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      adapters: [{name: legal, source: x}]\n      max_loaded_adapters: 0\n",
        f"35: {SIM}.max_loaded_adapters: should be greater than or equal to 1, found 0",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      max_loaded_adapters: 2\n",
        f"34: {SIM}.max_loaded_adapters: has no effect without `adapters`",
    ),
    (
        "{tensor: 4}\n      accelerator: H100",
        "{tensor: 1}\n      gpu_fraction: 2",
        f"22: {BIG}.gpu_fraction: should be less than or equal to 1, found 2",
    ),
    (
        "{tensor: 4}\n      accelerator: H100",
        "{tensor: 1}\n      gpu_fraction: 0.001",
        f"22: {BIG}.gpu_fraction: should be greater than or equal to 0.01, found 0.001",
    ),
    (
        "        seed: 1",
        "        gpu_memory_utilization: '0.9'",
        f'27: {BIG}.engine_args.gpu_memory_utilization: should be a number, found "0.9"',
    ),
    (
        GOOD[GOOD.index("{tensor: 4}") : GOOD.index("  - name: pretend")],
        "{tensor: 1}\n      gpu_fraction: 0.5\n      engine_args: {kv_cache_memory_bytes: 1}\n",
        (
            f"23: {BIG}.engine_args.kv_cache_memory_bytes: makes vLLM ignore the memory limit set"
            " by `gpu_fraction` 0.5: use `gpu_memory_utilization` instead"
        ),
    ),
    (
        "{tensor: 4}\n      accelerator: H100",
        "{tensor: 2}\n      gpu_fraction: 0.5",
        f"22: {BIG}.gpu_fraction: 0.5 allows one worker, but `parallelism` asks for 2",
    ),
    (
        "{tensor: 4}\n      accelerator: H100",
        "{tensor: 1}\n      accelerator: cpu\n      gpu_fraction: 0.5",
        f"23: {BIG}.gpu_fraction: needs a GPU, not `accelerator: cpu`",
    ),
    (
        "{min: 1, max: 3}",
        "{min: 1, max: 3, max_wait_s: 0}",
        f"34: {SIM}.autoscaling.max_wait_s: should be greater than 0, found 0",
    ),
    (
        "{min: 1, max: 3}",
        "{min: 1, max: 3, max_wait_s: 6}",
        (
            f"34: {SIM}.autoscaling.max_wait_s: 6 is more than `queue.max_wait_s` 5,"
            " so no wait would ever add a replica"
        ),
    ),
    (
        "{min: 1, max: 3}",
        "{min: 1, max: 3, max_wait: 2}",
        f"34: {SIM}.autoscaling.max_wait: unknown field, did you mean `max_wait_s`?",
    ),
    (
        "{min: 1, max: 3}",
        "{min: 0, max: 0}",
        f"34: {SIM}.autoscaling.max: should be greater than or equal to 1, found 0",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      cold_start_timeout_s: -1\n",
        f"34: {SIM}.cold_start_timeout_s: should be greater than 0, found -1",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      when_cold: wait\n",
        f"34: {SIM}.when_cold: should be 'hold' or 'fallback', found \"wait\"",
    ),
    (
        ENGINE_SIM,
        ENGINE_SIM + "      when_cold: fallback\n",
        f'34: {SIM}.when_cold: needs a chain for "pretend" in the gateway\'s `fallbacks`',
    ),
    (
        "      engine: sim",
        "      engine: sim\n      engine: sim",
        '34: applications[2] "pretend": args.engine: appears twice',
    ),
]


def rejection(path: Path, text: str) -> str:
    """Error message for the text as a file, without the file's name."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return "\n".join(line.removeprefix(f"{path}:") for line in lines)


@pytest.mark.parametrize(("good", "wrong", "line"), WRONG, ids=[wrong for _, wrong, _ in WRONG])
def test_a_mistake_is_one_line(tmp_path: Path, good: str, wrong: str, line: str) -> None:
    """A wrong field, value or combination is one line: line number, path, what is wrong."""
    assert GOOD.count(good) >= 1
    assert rejection(tmp_path / "wrong.yaml", GOOD.replace(good, wrong, 1)) == line


def test_a_good_file_is_read(tmp_path: Path) -> None:
    """The file in which the mistakes are made is itself valid."""
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    deployment = load_config(path)
    assert [(m.name, m.entry.name) for m in deployment.models] == [
        ("big", "org/big"),
        ("pretend", "pretend"),
    ]
    assert deployment.gateway.max_body_mb == 8


def test_other_applications_are_ignored(tmp_path: Path) -> None:
    """An application with another import path is left to Serve."""
    other = "  - {name: other, import_path: their.module:app, route_prefix: /other}\n"
    path = tmp_path / "good.yaml"
    path.write_text(GOOD + other)
    assert len(load_config(path).models) == 2


def test_every_mistake_is_reported(tmp_path: Path) -> None:
    """Three mistakes in one file are three lines."""
    text = GOOD.replace("  host:", "  hots:").replace("{tensor: 4}", "{tensor: x, pipelin: 2}")
    assert rejection(tmp_path / "wrong.yaml", text).splitlines() == [
        "2: http_options.hots: unknown field, did you mean `host`?",
        '21: applications[1] "big": args.parallelism.tensor: should be a whole number, found "x"',
        (
            '21: applications[1] "big": args.parallelism.pipelin: unknown field,'
            " did you mean `pipeline`?"
        ),
    ]


def test_every_wrong_name_is_reported(tmp_path: Path) -> None:
    """All contradictions in the gateway config are reported, or else all unknown names."""
    names = """aliases: {a: b, b: a, c: c}
          splits: {s: {models: {m: 1}, shadow: {model: m, fraction: 1}}}
          fallbacks: {s: [m, m]}"""
    assert rejection(tmp_path / "wrong.yaml", GOOD.replace(MAX_BODY, names)).splitlines() == [
        f"{CONFIG}.aliases.a: resolves to itself: a -> b -> a",
        f"{CONFIG}.aliases.c: resolves to itself: c -> c",
        (f"12{CONFIG[2:]}.splits.s.shadow.model: the split itself sends requests to `m`"),
        f"13{CONFIG[2:]}.fallbacks.s[1]: `m` appears twice",
    ]
    names = """aliases: {a: m, legal: pretend}
          fallbacks: {a: [n, pretend]}"""
    adapter = "      adapters: [{name: legal, source: x}]\n"
    text = GOOD.replace(MAX_BODY, names).replace(ENGINE_SIM, ENGINE_SIM + adapter)
    called = "no model, adapter, alias or split is named"
    known = "; known: org/big, pretend, legal, a"
    assert rejection(tmp_path / "wrong.yaml", text).splitlines() == [
        f'{CONFIG}.aliases.legal: "legal" is already an adapter of applications[2]',
        f'{CONFIG}.aliases.a: {called} "m"{known}',
        f'12{CONFIG[2:]}.fallbacks.a[0]: {called} "n"{known}',
    ]


def test_names_of_an_invalid_model_are_known(tmp_path: Path) -> None:
    """A mistake in an entry does not turn the names that lead to it into mistakes."""
    text = GOOD.replace(MAX_BODY, "aliases: {gpt: pretend}").replace("instant: true", "instant: 1")
    assert rejection(tmp_path / "wrong.yaml", text) == (
        f"36: {SIM}.simulation.instant: should be true or false, found 1"
    )


def test_a_cold_model_may_fall_back_under_any_of_its_names(tmp_path: Path) -> None:
    """For `when_cold: fallback`, the chain of an alias, a split or an adapter is enough."""
    path = tmp_path / "good.yaml"
    entry = ENGINE_SIM + "      when_cold: fallback\n      adapters: [{name: l, source: x}]\n"
    for names in (
        "{aliases: {gpt: pretend}, fallbacks: {gpt: [org/big]}}",
        "{splits: {s: {models: {pretend: 1}}}, fallbacks: {s: [org/big]}}",
        "{fallbacks: {l: [org/big]}}",
    ):
        text = GOOD.replace("user_config:\n          max_body_mb: 8", f"user_config: {names}")
        path.write_text(text.replace(ENGINE_SIM, entry))
        assert load_config(path).gateway.fallbacks


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "1: should be a mapping, found null"),
        ("- a\n", "1: should be a mapping, found a list"),
        ("http_options: {}\n", "1: `applications` is missing"),
        ("applications: {}\n", "1: applications: should be a list, found a mapping"),
        ("applications:\n  - 3\n", "2: applications[0]: should be a mapping, found 3"),
        ("a: [1\n", "2:1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c\n", "1:5: not YAML: mapping values are not allowed here"),
        ("a: !thing 1\n", "1:4: not YAML: could not determine a constructor for the tag '!thing'"),
        ("a: 1\n---\nb: 2\n", "2:1: not YAML: but found another document"),
    ],
)
def test_a_file_that_is_not_a_deployment_is_rejected(tmp_path: Path, text: str, line: str) -> None:
    """Any other content is rejected with the line where it goes wrong."""
    assert rejection(tmp_path / "wrong.yaml", text).splitlines()[0] == line


def test_a_file_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    """A missing file, a directory and binary content are reported with the reason."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file or directory"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"binary\.yaml: not YAML: "):
        load_config(binary)


def test_circular_yaml_aliases_end(tmp_path: Path) -> None:
    """A file whose YAML aliases contain themselves does not hang the check."""
    path = tmp_path / "loop.yaml"
    path.write_text("a: &a [*a]\napplications: []\n")
    with pytest.raises(ConfigError, match=r"loop\.yaml:1: a: unknown field"):
        load_config(path)


def test_mistakes_in_args_alone_name_the_model() -> None:
    """If only `args` are known, the line names the model; the error survives pickling."""
    with pytest.raises(ConfigError) as caught:
        parse_entry({"engine": "sim", "name": "m", "replica": 2})
    assert str(caught.value) == 'model "m": replica: unknown field, did you mean `replicas`?'
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    with pytest.raises(ConfigError, match=r"^model: engine: is missing; known: vllm, sim$"):
        parse_entry({})


def test_a_name_cannot_break_the_line() -> None:
    """Line breaks and invisible characters are written as escapes."""
    with pytest.raises(ConfigError) as caught:
        parse_gateway({"aliases": {"a\nb": "m"}, "x\u2028\x1b[0m": 1})
    assert str(caught.value).splitlines() == [
        "gateway: aliases.a\\nb: must be non-empty, without spaces or control characters",
        "gateway: x\\u2028\\x1b[0m: unknown field; known: " + ", ".join(GatewayConfig.model_fields),
    ]


def test_mistakes_in_user_config_alone_name_the_gateway() -> None:
    """If only the Router's `user_config` is known, the line begins with `gateway`."""
    with pytest.raises(
        ConfigError, match=r"^gateway: max_body_mb: should be a number, found \"x\"$"
    ):
        parse_gateway({"max_body_mb": "x"})
    with pytest.raises(ConfigError, match=r"^gateway: aliases\.a: resolves to itself: a -> a$"):
        parse_gateway({"aliases": {"a": "a"}})
    with pytest.raises(ConfigError, match=r"^gateway: should be a mapping, found a list$"):
        parse_gateway([])


FIELDS = sorted({*GatewayConfig.model_fields, *VllmEntry.model_fields, *SimEntry.model_fields})
INNER = "models shadow model fraction min tensor kind type name source step_s policy [key] ctx"
SCALARS = st.none() | st.booleans() | st.integers(-2, 10**20) | st.floats() | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["vllm", "sim", "gpu", "cpu", "H100"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(INNER.split()) | st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
ARGS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), VALUES, max_size=5)


@settings(deadline=None)
@given(args=ARGS, engine=st.sampled_from(["vllm", "sim"]))
def test_any_content_is_accepted_or_rejected_with_paths(
    args: dict[str, object], engine: str
) -> None:
    """Whatever a file contains, it is accepted, or rejected with lines that name a path."""
    wanted = {"name": "m", "engine": engine, "source": "s"}
    lines: list[str] = []
    for parse in (parse_gateway, parse_entry):
        for document in (args, wanted | args):
            try:
                parse(document)
            except ConfigError as error:
                lines += error.message.splitlines()
    assert all(": " in line for line in lines)


def test_fields_set_by_the_entry_exist_in_serve() -> None:
    """The fields rejected in a model's deployments are fields that Serve would accept."""
    assert set(SET_BY_ENTRY.split()) <= set(known_fields("deployment"))


SERVE_VALUES = [
    ("host: 127.0.0.1", "port: abc", '2: http_options.port: should be a whole number, found "abc"'),
    (
        "host: 127.0.0.1",
        "port: 70000",
        "2: http_options.port: should be between 1 and 65535, found 70000",
    ),
    (
        "host: 127.0.0.1",
        f"port: {10**400}",
        f"2: http_options.port: {10**39} is too large",
    ),
    (
        "host: 127.0.0.1",
        f"port: 0x{'f' * 5000}",
        f"2: http_options.port: 0x{'f' * 38} is too large",
    ),
    (
        "host: 127.0.0.1",
        "port: null",
        "2: http_options.port: should be a whole number, found null",
    ),
    (
        "host: 127.0.0.1",
        "keep_alive_timeout_s: 0.5",
        "2: http_options.keep_alive_timeout_s: should be a whole number, found 0.5",
    ),
    (
        "num_replicas: 2",
        "max_surge_percent: 101",
        "deployments[0].max_surge_percent: should be between 0 and 100, found 101",
    ),
    (
        "num_replicas: 2",
        "rolling_update_percentage: 0",
        "deployments[0].rolling_update_percentage: should be greater than 0, found 0",
    ),
    (
        "num_replicas: 2",
        "logging_config: {enable_access_log: false, level: DEBUG}",
        "logging_config.level: unknown field, did you mean `log_level`?",
    ),
    (
        "num_replicas: 2",
        "ray_actor_options: {runtime_env: {env_vars: {A: 1}}}",
        'runtime_env.env_vars.A: should be text, found 1 (put it in quotes: "1")',
    ),
    (
        "num_replicas: 2",
        "ray_actor_options: {runtime_env: {env_vars: {HF_TOKEN: 123}}}",
        "runtime_env.env_vars.HF_TOKEN: should be text, found <hidden>",
    ),
    (
        "num_replicas: 2",
        "ray_actor_options: {resources: {GPU: 1}}",
        "resources.GPU: set `num_gpus` instead",
    ),
    (
        "num_replicas: 2",
        "autoscaling_config: {max_replicas: 2, initial_replicas: 3}",
        "autoscaling_config.initial_replicas: 3 is more than `max_replicas` 2",
    ),
    (
        "num_replicas: 2",
        "autoscaling_config: {max_replicas: 2, initial_replicas: 0}",
        "autoscaling_config.initial_replicas: 0 is less than `min_replicas` 1",
    ),
    (
        "num_replicas: 2",
        "num_replicas: auto\n        autoscaling_config: {min_replicas: 101}",
        "autoscaling_config.min_replicas: 101 is more than `max_replicas` 100",
    ),
    (
        "num_replicas: 2",
        "num_replicas: 0",
        (
            '9: applications[0] "gateway": deployments[0].num_replicas: should be between 1 and'
            " 10000, found 0"
        ),
    ),
    (
        "num_replicas: 2",
        "num_replicas: many",
        (
            '9: applications[0] "gateway": deployments[0].num_replicas: should be a whole number'
            ' or `auto`, found "many"'
        ),
    ),
    (
        "num_replicas: 2",
        "autoscaling_config: {min_replicas: 3, max_replicas: 2}",
        (
            '9: applications[0] "gateway": deployments[0].autoscaling_config.min_replicas: 3 is'
            " more than `max_replicas` 2"
        ),
    ),
    (
        "num_replicas: 2",
        "ray_actor_options: {num_cpus: -1}",
        (
            '9: applications[0] "gateway": deployments[0].ray_actor_options.num_cpus: should be'
            " greater than or equal to 0, found -1"
        ),
    ),
    (
        "http_options:",
        "proxy_location: Everywhere\nhttp_options:",
        '1: proxy_location: found "Everywhere", did you mean `EveryNode`?',
    ),
    # Values that YAML reads in a surprising way
    (
        "max_model_len: 4096",
        "max_model_len: 010000",
        f'{BIG}.max_model_len: 010000 is 4096 to YAML, in base 8: write 4096, or "010000"',
    ),
    (
        "      replicas: 2\n",
        "      timeout_s: 1:30\n",
        f'{BIG}.timeout_s: 1:30 is 90 to YAML, in base 60: write 90, or "1:30"',
    ),
    (
        "NCCL_DEBUG: INFO",
        "NCCL_DEBUG: no",
        f'{BIG}.env.NCCL_DEBUG: should be text, found no (put it in quotes: "no")',
    ),
    (
        "NCCL_DEBUG: INFO",
        "NCCL_DEBUG: 2026-11-29",
        f'{BIG}.env.NCCL_DEBUG: should be text, found 2026-11-29 (put it in quotes: "2026-11-29")',
    ),
    *(
        (
            "NCCL_DEBUG: INFO",
            f"DB_PASS: {secret}",
            f"{BIG}.env.DB_PASS: <hidden> is a number to YAML: put it in quotes",
        )
        for secret in ("0123456", "12:34:56", "1" * 40)
    ),
    ("NCCL_DEBUG: INFO", "NO: INFO", f"{BIG}.env.false: should be text, found false"),
    (
        "max_model_len: 4096",
        "max_model_len: 4e3",
        (
            f'{BIG}.max_model_len: should be a whole number, found "4e3" (YAML reads 4e3 as text:'
            " write 4000)"
        ),
    ),
    (
        "max_model_len: 4096",
        f"max_model_len: {10**30}",
        f"{BIG}.max_model_len: {10**30} is too large",
    ),
    ("      replicas: 2\n", "      replicas: 20000\n", f"{BIG}.replicas: 20000 is more than 10000"),
    (
        "source: org/big",
        "source: /no/such/model",
        f'{BIG}.source: no directory "/no/such/model" on this machine: /no/such/model',
    ),
]


@pytest.mark.parametrize(("right", "wrong", "line"), SERVE_VALUES)
def test_a_value_that_cannot_work_is_one_line(
    tmp_path: Path, right: str, wrong: str, line: str
) -> None:
    """Found before anything starts; the line says what is allowed."""
    assert right in GOOD
    path = tmp_path / "serve.yaml"
    path.write_text(GOOD.replace(right, wrong, 1))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(str(caught.value).splitlines()) == 1
    assert line in str(caught.value)


def loaded(tmp_path: Path, text: str) -> DeploymentFile:
    """The file with this text, read."""
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    return load_config(path)


MERGED = """\
http_options: {host: 127.0.0.1}
applications:
  - {name: gateway, import_path: deployments.app:gateway}
  - name: a
    import_path: deployments.app:model
    route_prefix: null
    args: &base
      name: a
      engine: sim
      simulation: &speed {instant: true, step_s: 0.5}
  - name: b
    import_path: deployments.app:model
    route_prefix: null
    args:
      <<: *base
      name: b
      simulation: {<<: *speed, step_s: 0.25}
  - name: c
    import_path: deployments.app:model
    route_prefix: null
    args: {name: c, <<: [{timeout_s: 7}, {timeout_s: 8, drain_timeout_s: 9}, *base]}
"""


def test_a_merged_key_is_overridden_by_the_mapping_s_own(tmp_path: Path) -> None:
    """As YAML means it: also in nested mappings; of several merged ones the first counts."""
    a, b, c = (model.entry for model in loaded(tmp_path, MERGED).models)
    assert isinstance(a, SimEntry)
    assert isinstance(b, SimEntry)
    assert (a.name, b.name, c.name) == ("a", "b", "c")
    assert (b.simulation.instant, b.simulation.step_s) == (True, 0.25)
    assert (c.timeout_s, c.drain_timeout_s) == (7, 9)


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("      name: b\n", "      name: b\n      name: b\n", "args.name: appears twice"),
        ("      name: b\n", "      name: b\n      <<: *speed\n", "args.<<: appears twice: merge"),
        ("<<: *base", "<<: 5", "not YAML: expected a mapping or list of mappings for merging"),
        ("<<: *base", "<<: *nowhere", "not YAML: found undefined alias 'nowhere'"),
    ],
)
def test_a_key_that_a_mapping_itself_repeats_is_refused(
    tmp_path: Path, right: str, wrong: str, line: str
) -> None:
    """YAML would silently drop one of them."""
    assert right in MERGED
    with pytest.raises(ConfigError, match=re.escape(line)):
        loaded(tmp_path, MERGED.replace(right, wrong, 1))


def test_aliases_cannot_stand_for_more_than_a_config_needs(tmp_path: Path) -> None:
    """A few hundred bytes could otherwise stand for billions of values."""
    names = "abcdefghij"
    bomb = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in pairwise(names):
        bomb.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    merges = ["a: &a {x: 1}"]
    for before, name in pairwise(names):
        merges.append(f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}")
    for lines in (bomb, merges):
        with pytest.raises(ConfigError, match="its aliases stand for more than 200,000 values"):
            loaded(tmp_path, "\n".join(lines))


def test_deep_nesting_and_size_are_bounded(tmp_path: Path) -> None:
    """A file that is no config is refused, not read to the end."""
    with pytest.raises(ConfigError, match="nested too deeply"):
        loaded(tmp_path, "[" * 20_000)
    with pytest.raises(ConfigError, match="is larger than 4 MB"):
        loaded(tmp_path, "# " + "x" * (5 << 20))
    with pytest.raises(ConfigError, match="should be a mapping"):
        loaded(tmp_path, "")


def test_secrets_and_references_are_warned_of(tmp_path: Path) -> None:
    """The file is valid; the warning says which field, and what to do, and not the value."""
    secret = "hf_0123456789abcdefghij"  # noqa: S105 - it is none
    text = GOOD.replace("NCCL_DEBUG: INFO", f"{{HF_TOKEN: {secret}, OTHER: 'env:NOT_SET_HERE'}}")
    text = text.replace("env:\n        {", "env: {")
    warnings = loaded(tmp_path, text).warnings
    assert [line.partition("args.")[2] for line in warnings] == [
        (
            "env.HF_TOKEN: is a secret in plain text, which Serve stores, shows and logs: write"
            " `env:NAME` or `file:PATH` instead"
        ),
        "env.OTHER: NOT_SET_HERE is not set here; it must be where the engine runs",
    ]
    assert secret not in "".join(warnings)


def test_the_scale_of_the_routers_is_read(tmp_path: Path) -> None:
    """A number of replicas or a range of them, and the logical CPUs of each."""
    assert loaded(tmp_path, GOOD).routers == RouterScale(2, 2, 0.2)
    scaled = "autoscaling_config: {min_replicas: 1, max_replicas: 4}"
    text = GOOD.replace("num_replicas: 2", f"{scaled}\n        ray_actor_options: {{num_cpus: 1}}")
    assert loaded(tmp_path, text).routers == RouterScale(1, 4, 1)


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ("num_replicas: auto", RouterScale(1, 100, 0.2)),
        (
            "num_replicas: auto\n        autoscaling_config: {min_replicas: 5}",
            RouterScale(5, 100, 0.2),
        ),
        ("ray_actor_options: {num_cpus: null}", RouterScale(1, 1, 1)),
    ],
)
def test_routers_scale_by_what_serve_makes_of_the_fields(
    tmp_path: Path, fields: str, scale: RouterScale
) -> None:
    """`auto` is up to a hundred, and no CPUs are one."""
    text = GOOD.replace("num_replicas: 2", fields, 1)
    assert loaded(tmp_path, text).routers == scale


def test_what_vllm_refuses_is_reported_at_its_field(tmp_path: Path) -> None:
    """vLLM is asked about all its models at once, if nothing else is wrong."""
    asked: list[list[str]] = []

    def ask(entries: Sequence[VllmEntry]) -> Sequence[FieldError | None]:
        asked.append([entry.name for entry in entries])
        return [FieldError(("engine_args", "seed"), "not that one")]

    path = tmp_path / "serve.yaml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError, match=r':27: .* "big": args.engine_args.seed: not that one$'):
        load_config(path, ask)
    path.write_text(GOOD.replace("instant: true", "instant: 1"))
    with pytest.raises(ConfigError, match="instant"):
        load_config(path, ask)
    assert asked == [["org/big"]]


PINNED = GOOD.replace(
    "    deployments:\n",
    "    args: {accounts: {database: 'sqlite:///~/x.db'}}\n    deployments:\n"
    "      - {name: Accounts, ray_actor_options: {num_cpus: 0.1, resources: {ledger: 0.01}}}\n",
    1,
)


def test_accounts_can_be_pinned_to_the_node_of_its_database(tmp_path: Path) -> None:
    """By a resource of that node; the routers' scale is still the routers'."""
    assert loaded(tmp_path, PINNED).routers == RouterScale(2, 2, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PINNED.replace("0.01}}}", "0.01}}, num_replicas: 2}"), "num_replicas: cannot be set for"),
        (PINNED.replace("0.01}}}", "0.01}}, user_config: {}}"), "user_config: cannot be set for"),
        (PINNED.replace("    args: {accounts", "    # args: {accounts"), "name: needs `accounts`"),
    ],
)
def test_nothing_else_of_accounts_can_be_set(tmp_path: Path, text: str, message: str) -> None:
    """It has one replica, and its config is in `args`."""
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, text)


def test_prices_and_weights_of_unknown_names_are_warned_of(tmp_path: Path) -> None:
    """A model whose price is misspelt would be free of charge."""
    accounts = (
        "    args: {accounts: {database: 'sqlite:///~/x.db', prices: {org/bgi: [{input: 1}],"
        " pretend: [{input: 1}]}, idle_weights: {search: 1, proj_x: 2}}}\n    deployments:\n"
    )
    text = GOOD.replace("    deployments:\n", accounts, 1)
    found = loaded(tmp_path, text).warnings
    assert [line.partition("args.accounts.")[2] for line in found] == [
        'prices.org/bgi: no model or adapter is named "org/bgi", did you mean `org/big`?',
        'prices: model "org/big" has no price: its requests cost nothing',
        "idle_weights.search: is no id of a project, such as proj_...; names do not count",
    ]
    assert loaded(tmp_path, PINNED).warnings == ()
