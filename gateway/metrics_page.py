"""The page on all that is measured, written from the catalogue of metrics."""

from collections.abc import Iterator

from gateway.metrics import METRICS, Counter, Gauge, Histogram, Metric

KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}

INTRODUCTION = """\
# What is measured

<!-- Written by `gateway docs metrics > docs/metrics.md`: do not edit. -->

Routers and engines tell their metrics to Ray, whose agent on every node exports those of all its
processes. `make observe` shows them for a gateway on this machine: Prometheus, and Grafana with
the dashboard of [configs/grafana/gateway.json](../configs/grafana/gateway.json), which can be
imported into any other Grafana too.

## Scraping

One Prometheus job gets everything. Ray's head node keeps a list of all agents:

```yaml
scrape_configs:
  - job_name: ray
    scrape_interval: 10s  # processes report to their agent as often
    file_sd_configs:
      - files: [/tmp/ray/prom_metrics_service_discovery.json]
```

A Prometheus elsewhere gets the list from the dashboard with `http_sd_configs`, at
`/api/prometheus/sd` (with Ray's token as its credentials), or has the agents' addresses written
down, if Ray is started with a fixed `--metrics-export-port`. With KubeRay, whose pods name that
port `metrics`:

```yaml
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: ray}
spec:
  selector:
    matchExpressions:
      - {key: ray.io/node-type, operator: In, values: [head, worker]}
  podMetricsEndpoints:
    - port: metrics
      interval: 10s
      relabelings:
        - {sourceLabels: [__meta_kubernetes_pod_label_ray_io_cluster], targetLabel: ray_io_cluster}
```

Ray adds labels to all: `WorkerId` (of the process), `NodeAddress`, `SessionName`, `Component`,
`Version`. What else to know of Ray's agents:

- A counter is there from its first event on, which `rate` and `increase` do not see. Where single
  events matter, have a counter counted that was not there before, as the query for faults does.
- A gauge that nobody sets any more goes away after seconds. Routers set theirs every five seconds.
- Of a histogram of Ray's or vLLM's only the counts of its buckets are exact; its `_sum` is an
  estimate from them. The gateway's own are exact, and by their `# TYPE` gauges that look as
  histograms do: a router adds up what it observes and tells it every five seconds, because Ray's
  agent would take tens of microseconds for every observation.

What HAProxy answers by itself (400, 408, 502, 503, 504) never reaches a router. Its own exporter
counts that on every node, at the port `RAY_SERVE_HAPROXY_METRICS_PORT` (9101), as
`haproxy_frontend_http_responses_total`.
"""

OURS = """\
## The gateway's metrics

Every router tells its own: of counters and histograms take the sum over routers, and of the gauges
the sum (`in_flight`, `queued`, `awaiting_start`), the maximum (`replicas`, which all routers see)
or the mean (`learned`). `model` is the model or adapter that was asked in the end, after aliases,
splits and fallbacks; `-` for requests that name none there is.
"""

ENGINES = """\
## vLLM's metrics

Engines of `engine: vllm` export all of vLLM's own metrics, named `ray_vllm_` instead of `vllm:`,
with the labels `model_name`, `engine` (of several data-parallel ones) and `ReplicaId`, which is
what the client finds in `x-gateway-replica`. Engines that have nothing to do are silent: their
gauges go away. With `disable_log_stats` among the `engine_args` there are none. Those to look at
first:
"""

FIRST_OF_ENGINES = (
    ("num_requests_running", "gauge", "Requests in the engine's batch."),
    ("num_requests_waiting_by_reason", "gauge", "Requests that wait in the engine, by `reason`."),
    ("kv_cache_usage_perc", "gauge", "How much of the KV cache requests use: 1 is all."),
    ("num_preemptions_total", "counter", "Requests put off for want of KV cache."),
    ("prompt_tokens_by_source_total", "counter", "Prompt tokens, computed or cached, by `source`."),
    ("generation_tokens_total", "counter", "Tokens made."),
    ("request_success_total", "counter", "Requests that have ended, by `finished_reason`."),
    ("iteration_tokens_total", "histogram", "Tokens in one step of the engine."),
    ("request_queue_time_seconds", "histogram", "What requests waited in it; from 0.3 s on."),
    ("request_prefill_time_seconds", "histogram", "What their prompts took."),
    ("request_decode_time_seconds", "histogram", "What their answers took."),
    ("time_to_first_token_seconds", "histogram", "To the first token, as the engine sees it."),
    ("inter_token_latency_seconds", "histogram", "Between any two tokens of an answer."),
)
"""Name without `ray_vllm_`, kind and meaning of what operators want."""

QUERIES = """\
Hit rate of the prefix caches:

    sum by (model) (rate(ray_gateway_cached_tokens_total[5m]))
      / sum by (model) (rate(ray_gateway_prompt_tokens_total[5m]))

The hit rate that routing counted on. Where it is far above the real one, engines drop what routers
think they hold:

    sum by (model) (rate(ray_gateway_predicted_cached_tokens_total[5m]))
      / sum by (model) (rate(ray_gateway_prompt_tokens_total[5m]))

Seconds until the first event, for 95 of 100 streams:

    histogram_quantile(0.95, sum by (model, le) (rate(ray_gateway_ttft_seconds_bucket[5m])))

Goodput, the share of streams that begin within a second (or any other bound of the histogram):

    sum by (model) (rate(ray_gateway_ttft_seconds_bucket{le="1.0"}[5m]))
      / sum by (model) (rate(ray_gateway_ttft_seconds_count[5m]))

The share of requests that fail through no fault of their clients, to alert on:

    sum(rate(ray_gateway_requests_total{outcome=~"failed|truncated|timeout"}[5m]))
      / sum(rate(ray_gateway_requests_total[5m]))

Requests turned away in a second, because the model has too few replicas:

    sum by (model) (rate(ray_gateway_requests_total{outcome="shed"}[5m]))

Tokens of answers in a second:

    sum by (model) (rate(ray_gateway_completion_tokens_total[5m]))

Requests held back, and those that wait for an engine to start:

    sum by (model, priority) (ray_gateway_queued)
    sum by (model) (ray_gateway_awaiting_start)

Engines, by how they stand:

    max by (model, state) (ray_gateway_replicas)

Seconds that the gateway adds, for 99 of 100 requests:

    histogram_quantile(0.99, sum by (le) (rate(ray_gateway_overhead_seconds_bucket[5m])))

What went wrong in the last hour, and what was done about it:

    sum by (model, reason, action) (
      (ray_gateway_faults_total unless ray_gateway_faults_total offset 1h)
      or increase(ray_gateway_faults_total[1h])
    )

Engines short of KV cache:

    sum by (model_name, ReplicaId) (rate(ray_vllm_num_preemptions_total[5m])) > 0
"""

TIMING = """\
## Server-Timing

Every answer of an inference route says what the time until its first byte went into, in
milliseconds, so that one slow request can be understood without any of the above; browsers show
it:

```
server-timing: receive;dur=0.09, queue;dur=0.00, route;dur=0.14, connect;dur=0.00,
               engine;dur=25.23, first_event;dur=0.00, gateway;dur=0.53
```

| step | what was done |
| --- | --- |
| `receive` | reading the request's body, as fast as the client sends it |
| `queue` | waiting for an engine: to start the request, or to be started itself |
| `route` | making the prompt's prefix keys, admitting the request and choosing its replica |
| `connect` | connecting to the engine; 0 on a connection that was kept |
| `engine` | from the request sent to the head of the engine's answer (unstreamed, all of it) |
| `first_event` | from there to the first event of a stream, with which the reply begins |
| `gateway` | all that the gateway itself has added, `route` included |

A step that was taken several times, because a replica failed, is the sum. A reply that begins
while its engine is still being started says what is known by then.

## Traces

Routers write OpenTelemetry traces when the standard variables ask for it, in the environment in
which Ray starts or in the Router's `ray_actor_options: {runtime_env: {env_vars: ...}}` (vLLM
brings what this needs; where it is not installed, the extra `tracing` does):

| variable | |
| --- | --- |
| `OTEL_EXPORTER_OTLP_ENDPOINT` | the collector; it turns tracing on |
| `OTEL_EXPORTER_OTLP_PROTOCOL` | `http/protobuf` (the default) or `grpc` |
| `OTEL_TRACES_EXPORTER` | `otlp`, `console` (into the router's log) or `none` |
| `OTEL_TRACES_SAMPLER`, with `_ARG` | which requests; unset, all whose client does not say no |
| `OTEL_SERVICE_NAME` | `ray-llm-gateway`, unless set |
| `OTEL_SDK_DISABLED` | `true` turns tracing off |

(The first two also with `_TRACES` before their last word.) A request is a span (`POST
/v1/chat/completions`) with the model, the outcome, the status, the replica and the request's id,
and one span below it for each step it took, by the names of `Server-Timing`, and `relay` for the
answer itself. It belongs to the client's trace, if the client sends `traceparent`, and the engine
is sent one too: with `otlp_traces_endpoint` among a model's `engine_args`, vLLM's spans are below
ours.
"""


def metrics_page() -> str:
    """The whole page, in Markdown."""
    ours = [f"| `{m.exported_name}` | {_kind(m)} | {_labels(m)} | {m.meaning} |" for m in METRICS]
    engines = [
        f"| `ray_vllm_{name}` | {kind} | {meaning} |" for name, kind, meaning in FIRST_OF_ENGINES
    ]
    head, engines_head = "| metric | kind | labels | meaning |", "| metric | kind | meaning |"
    return "\n".join(
        [
            *(INTRODUCTION, OURS, head, "| --- | --- | --- | --- |", *ours, ""),
            *_buckets(),
            *(ENGINES, engines_head, "| --- | --- | --- |", *engines, ""),
            *("## Queries\n", QUERIES),
            TIMING,
        ]
    )


def _kind(metric: Metric) -> str:
    return KINDS[type(metric)]


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


def _buckets() -> Iterator[str]:
    yield "Upper ends of the histograms' buckets, in seconds:\n"
    for metric in METRICS:
        if isinstance(metric, Histogram):
            yield f"- `{metric.exported_name}`: {', '.join(f'{b:g}' for b in metric.bounds)}"
    yield ""
