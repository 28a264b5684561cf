"""Every HTTP header that clients and the gateway exchange beside those of HTTP itself."""

import msgspec

REQUEST_ID = b"x-request-id"
ANTHROPIC_REQUEST_ID = b"request-id"
AUTHORIZATION = b"authorization"
API_KEY = b"x-api-key"
PRIORITY = b"x-gateway-priority"
TIMEOUT = b"x-request-timeout-s"
RESUME = b"x-gateway-resume"
EXPLAIN = b"x-gateway-explain"
ADMIN_KEY = b"x-gateway-admin-key"
SESSION = b"x-session-id"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
FORWARDED_FOR = b"x-forwarded-for"

MODEL = b"x-gateway-model"
REPLICA = b"x-gateway-replica"
CACHED_TOKENS = b"x-gateway-cached-tokens"
RETRIES = b"x-gateway-retries"
DECISION = b"x-gateway-decision"
STATE = b"x-gateway-state"
EXPECTED_START = b"x-gateway-expected-start-s"
COLD_START = b"x-gateway-cold-start-s"
IGNORED_TOOLS = b"x-gateway-ignored-tools"
SERVER_TIMING = b"server-timing"
PROCESSING_MS = b"openai-processing-ms"
OPENAI_VERSION = b"openai-version"
RETRY_AFTER = b"retry-after"
RETRY_AFTER_MS = b"retry-after-ms"
RATE_LIMITS = (
    *(b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests"),
    b"x-ratelimit-reset-requests",
    *(b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens"),
    b"x-ratelimit-reset-tokens",
)
"""Limit, rest and reset, of requests and of tokens."""
ANTHROPIC_RATE_LIMITS = (
    *(b"anthropic-ratelimit-requests-limit", b"anthropic-ratelimit-requests-remaining"),
    b"anthropic-ratelimit-requests-reset",
    *(b"anthropic-ratelimit-tokens-limit", b"anthropic-ratelimit-tokens-remaining"),
    b"anthropic-ratelimit-tokens-reset",
)
"""The same, as Anthropic names them."""
CONTENT_ENCODING = b"content-encoding"
ACCEPT_ENCODING = b"accept-encoding"
ORIGIN = b"origin"
ACCEL_BUFFERING = b"x-accel-buffering"
SHOULD_RETRY = b"x-should-retry"
ALLOW = b"allow"
WWW_AUTHENTICATE = b"www-authenticate"
SERVICE_TIER = b"x-gateway-service-tier"
SIMULATED = b"x-simulated"

DISPATCH = b"x-gateway-dispatch"
DRAINING = b"x-engine-draining"

PROJECT = b"x-gateway-project"

PROXY_PROOF = b"x-gateway-proxy-key"
IS_TRUSTED_PROXY = b"x-gateway-trusted-proxy"

FORWARDED_PREFIX = b"x-forwarded-"
FORWARDING = frozenset(
    {
        b"cf-connecting-ip",
        b"client-ip",
        b"fastly-client-ip",
        b"forwarded",
        b"true-client-ip",
        b"via",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-original-host",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    }
)
"""Headers that proxies add, besides those that begin with `FORWARDED_PREFIX`."""


class Header(msgspec.Struct, frozen=True):
    """A header, its possible values and its meaning."""

    name: bytes
    value: str
    meaning: str


REQUEST_HEADERS = (
    Header(
        REQUEST_ID,
        "at most 128 visible characters",
        "Names the request in logs, traces and the engine. The gateway makes one up if it is"
        " missing or malformed.",
    ),
    Header(
        AUTHORIZATION,
        "`Bearer KEY`",
        "The client's API key, or a token of an identity provider. Under `/gateway`, an admin key."
        " Without `auth`, it only tells the clients of one address apart in the queues. Engines"
        " never see it.",
    ),
    Header(API_KEY, "a key", "The same, as Anthropic's clients send it."),
    Header(
        PRIORITY,
        "`interactive` (default) or `batch`",
        "Batch requests wait for all others. The same as `service_tier: flex` in the body.",
    ),
    Header(
        TIMEOUT,
        "seconds, above 0 and at most 86400",
        "Deadline for the whole answer, if it is sooner than the model's `timeout_s`.",
    ),
    Header(
        RESUME,
        "`on` (default) or `off`",
        "`off` disables stream resumption: a stream that breaks ends with an error event.",
    ),
    Header(
        SESSION,
        "any text; 256 bytes count",
        "Requests of a session prefer one replica, as far as that costs little, and stay with one"
        " model of a split.",
    ),
    Header(
        CONTENT_ENCODING,
        "`gzip`, `deflate`, `zstd` or `identity`; several, in the order applied",
        "How the body is compressed. The gateway decodes it; its limits hold for the result.",
    ),
    Header(ORIGIN, "an origin", "Set by browsers; answered only as the gateway's `cors` allows."),
    Header(EXPLAIN, "`1`", "Asks for `x-gateway-decision` in the answer."),
    Header(
        ADMIN_KEY,
        "an admin key",
        "Shows an operator, on a request of a project, the headers that projects do not get:"
        " `x-gateway-replica`, `x-gateway-cached-tokens` and `x-gateway-decision`. Engines never"
        " see it.",
    ),
    Header(
        TRACEPARENT,
        "W3C trace context",
        "The trace that the request's spans join. The engine is sent one too.",
    ),
    Header(TRACESTATE, "W3C trace context", "Passed on with `traceparent`."),
    Header(
        FORWARDED_FOR,
        "an address",
        "`gateway-haproxy` adds a line with the address it was connected from. Lines that came with"
        " the request count only if that address is one of the `trusted_proxies`.",
    ),
)
"""Headers that clients may send."""

RESPONSE_HEADERS = (
    Header(REQUEST_ID, "text", "The request's name; on every response."),
    Header(ANTHROPIC_REQUEST_ID, "text", "The same, where Anthropic's clients look for it."),
    Header(OPENAI_VERSION, "`2020-10-01`", "Version of OpenAI's API; on every response."),
    Header(PROCESSING_MS, "milliseconds", "Time until the engine began to answer."),
    Header(MODEL, "a model or adapter", "Which model answered, after aliases, splits, fallbacks."),
    Header(
        REPLICA,
        "a replica's id",
        "Which replica answered. Where clients are authenticated, only with `x-gateway-admin-key`.",
    ),
    Header(
        CACHED_TOKENS,
        "tokens",
        "How much of the prompt the router expected to find in that replica's KV cache; `usage` has"
        " what the engine found. Where clients are authenticated, only with `x-gateway-admin-key`.",
    ),
    Header(RETRIES, "a number", "How many attempts failed before this one; absent if none did."),
    Header(
        DECISION,
        "JSON",
        "Why the request went there: all candidates with their costs. Only with"
        " `x-gateway-explain: 1`; where clients are authenticated, also with"
        " `x-gateway-admin-key`.",
    ),
    Header(
        STATE,
        "a model's state",
        "On a stream that began while the model was starting, instead of `x-gateway-model`.",
    ),
    Header(EXPECTED_START, "seconds", "On the same streams: time until the start should be done."),
    Header(
        COLD_START,
        "seconds",
        "How long the request waited for an engine to start; absent if it did not.",
    ),
    Header(
        IGNORED_TOOLS,
        "types of tools",
        "Hosted tools, such as `web_search`, that a request to `/v1/responses` lists among its own,"
        " and that its model was not shown, because they do not run here.",
    ),
    Header(
        SERVER_TIMING,
        "steps with milliseconds",
        "What the time until the first byte was spent on. See [Server-Timing](metrics.md"
        "#server-timing).",
    ),
    Header(RETRY_AFTER, "seconds", "With 429 and 503: when to try again."),
    Header(RETRY_AFTER_MS, "milliseconds", "The same, more exactly."),
    *(
        Header(name, value, meaning)
        for name, value, meaning in zip(
            RATE_LIMITS,
            ("requests", "requests", "such as `1m0s`", "tokens", "tokens", "such as `6.25s`"),
            (
                "Requests a minute of the project; of several limits, that which leaves least.",
                "How many more requests the limit allows now.",
                "Time until no request counts any more.",
                "Tokens a minute, in the same way.",
                "How many more tokens it allows now.",
                "Time until no tokens count any more.",
            ),
            strict=True,
        )
    ),
    *(
        Header(name, value, "The same, as Anthropic has it; on the routes under `/v1/messages`.")
        for name, value in zip(
            ANTHROPIC_RATE_LIMITS,
            ("requests", "requests", "a time", "tokens", "tokens", "a time"),
            strict=True,
        )
    ),
    Header(
        SHOULD_RETRY,
        "`false`",
        "Keeps OpenAI's and Anthropic's clients from repeating the request. With 504, where"
        " other replicas have been tried in vain, or none should be, where a request alone is above"
        " a limit of its project, and where the project's money is spent.",
    ),
    Header(ACCEL_BUFFERING, "`no`", "On streams, with `cache-control: no-cache`: for proxies."),
    Header(SIMULATED, "`1`", "The answer comes from an engine of `engine: sim`."),
    Header(ACCEPT_ENCODING, "encodings", "With 415: the content encodings that are supported."),
    Header(WWW_AUTHENTICATE, "`Bearer`", "With 401: how to authenticate."),
    Header(
        SERVICE_TIER,
        "`flex`, `default` or `priority`",
        "The tier that was served, on answers to requests that ask for one.",
    ),
    Header(ALLOW, "methods", "With 405, and in answer to `OPTIONS`: the methods that are allowed."),
)
"""Headers that clients may receive."""

ENGINE_HEADERS = (
    Header(
        DISPATCH,
        "msgpack, base64",
        "What the router tells the engine about a request: prefix keys, priority, target.",
    ),
    Header(
        DRAINING,
        "`1`, `died`",
        "On an engine's 503: it is shutting down, or has died under the request; ask another one.",
    ),
    Header(
        PROJECT,
        "an id, percent-encoded",
        "Tells State, which holders of its key alone can ask, whose request it is; empty where"
        " nobody is authenticated.",
    ),
    Header(
        PROXY_PROOF,
        "a key, in hexadecimal",
        "Proves to a router that a request came through `gateway-haproxy` of the same cluster.",
    ),
    Header(
        IS_TRUSTED_PROXY,
        "`1`",
        "Tells HAProxy that a connection comes from a trusted proxy, which may have any number.",
    ),
)
"""Headers between HAProxy, routers, engines and State; clients never see them."""
