"""Tables of all metrics, generated from the catalogue that names them."""

from gateway.metrics import METRICS, Counter, Gauge, Histogram
from gateway.reference.markdown import code, table

KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}

VLLM_FIRST = (
    ("num_requests_running", "gauge", "Requests in the engine's batch."),
    ("num_requests_waiting_by_reason", "gauge", "Requests waiting inside the engine, by `reason`."),
    ("kv_cache_usage_perc", "gauge", "Share of the KV cache in use, from 0 to 1."),
    ("num_preemptions_total", "counter", "Requests preempted because the KV cache was full."),
    ("prompt_tokens_by_source_total", "counter", "Prompt tokens, by `source`: computed or cached."),
    ("generation_tokens_total", "counter", "Tokens generated."),
    ("request_success_total", "counter", "Finished requests, by `finished_reason`."),
    ("iteration_tokens_total", "histogram", "Tokens per engine step."),
    (
        "request_queue_time_seconds",
        "histogram",
        "Time in the engine's own queue; first bucket at 0.3 s.",
    ),
    ("request_prefill_time_seconds", "histogram", "Time to compute the prompt."),
    ("request_decode_time_seconds", "histogram", "Time to generate the answer."),
    ("time_to_first_token_seconds", "histogram", "Time to first token, measured by the engine."),
    ("inter_token_latency_seconds", "histogram", "Time between two tokens of an answer."),
)
"""vLLM's metrics that operators look at first: name without `ray_vllm_`, kind, meaning."""


def metrics_tables() -> dict[str, str]:
    """The gateway's metrics, their buckets, and vLLM's metrics to look at first."""
    ours = [
        (code(m.exported_name), KINDS[type(m)], ", ".join(map(code, m.labels)), m.meaning)
        for m in METRICS
    ]
    bounds = [
        (code(m.exported_name), ", ".join(f"{bound:g}" for bound in m.bounds))
        for m in METRICS
        if isinstance(m, Histogram)
    ]
    engines = [(code(f"ray_vllm_{name}"), kind, meaning) for name, kind, meaning in VLLM_FIRST]
    return {
        "gateway": table(("metric", "kind", "labels", "meaning"), ours),
        "buckets": table(("histogram", "upper bounds of its buckets, in seconds"), bounds),
        "vllm": table(("metric", "kind", "meaning"), engines),
    }
