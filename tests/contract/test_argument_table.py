"""Table of vLLM's arguments against the installed vLLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

from gateway.config.engine_arguments import TABLE
from gateway.config.engine_check import CHECKS, EngineCheck, run_vllm

PROJECT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_installed_vllm() -> None:
    """Its command writes the same file again."""
    ended = subprocess.run(
        [sys.executable, "-m", "deployments.engines.vllm.argument_table"],
        capture_output=True,
        check=True,
        cwd=PROJECT,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
    )
    written = ended.stdout[ended.stdout.index(b"{") :]
    assert json.loads(written) == json.loads(TABLE.read_bytes())
    assert written == TABLE.read_bytes()


def test_vllm_says_what_is_wrong_with_arguments() -> None:
    """What only vLLM knows: fields of its mappings, and a model's own limits."""
    demo = str(PROJECT / "models" / "demo")

    def check(model: str = demo, **arguments: object) -> EngineCheck:
        plain = {"arguments": {"model": model, **arguments}, "on_cpu": True}
        return CHECKS.validate_python([plain])[0]

    answers = run_vllm(
        [
            check(max_num_seqs=4, disable_log_stats=False, allowed_origins=["*"]),
            check("org/none", middleware=["a.b"], enforce_eager=True, cudagraph_capture_sizes=[1]),
            check(max_model_len=10**6),
            check("org/none", kv_transfer_config={"kv_connector": 3}),
            check(quantization="nonsense"),
            check(hf_overrides={"architectures": ["Nonsense"]}),
        ]
    )
    assert list(answers[:2]) == ["", ""]
    for answer, part in zip(
        answers[2:],
        (
            "max_model_len (1000000) is greater than the derived",
            "argument --kv-transfer-config: kv_connector: Input should be a valid string",
            "Unknown quantization method: nonsense",
            "Model architectures ['Nonsense'] are not supported",
        ),
        strict=True,
    ):
        assert part in answer
        assert "\n" not in answer
