"""vLLM's in-process executor, by its import path. This module does not import vLLM."""

IN_CORE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Executor that vLLM (0.32) calls `uni`: by its path vLLM does not replace it by `mp`."""
