# The gateway on top of vLLM's own image, which brings CUDA, PyTorch and vLLM.
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0
FROM ${VLLM_IMAGE}

ARG RAY_VERSION=2.60.0
ARG UID=1000

# Installs the gateway and what it needs besides vLLM. The image's own packages are pinned: a conflict
# fails the build here, not an engine later.
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY deployments deployments
COPY configs configs
RUN python3 -m pip list --format=freeze > constraints.txt \
    && python3 -m pip install --no-cache-dir --constraint constraints.txt \
        "ray[serve]==${RAY_VERSION}" . \
    && test -x /usr/local/bin/gateway-haproxy \
    && useradd --uid "${UID}" --non-unique --create-home gateway

# The variables that `gateway env` prints (docs/reference.md says what each does); a test compares them.
ENV RAY_SERVE_ENABLE_HA_PROXY=1 \
    RAY_SERVE_THROUGHPUT_OPTIMIZED=1 \
    RAY_SERVE_HAPROXY_BINARY_PATH=/usr/local/bin/gateway-haproxy \
    RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S=300 \
    RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S=14400 \
    RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S=14400 \
    RAY_SERVE_PORT_QUARANTINE_S=150 \
    RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response" \
    RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT=1 \
    RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S=1 \
    RAY_SERVE_HAPROXY_METRICS_ENABLED=0 \
    RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1

USER ${UID}
EXPOSE 8000 8265
HEALTHCHECK --start-period=20m --interval=10s --timeout=3s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]

ENTRYPOINT ["serve"]
CMD ["run", "configs/prod.yaml"]
