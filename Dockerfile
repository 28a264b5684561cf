# The gateway on top of vLLM's own image, which brings CUDA, PyTorch and vLLM.
#
#   docker build --build-arg VLLM_DIGEST=sha256:... -t ray-llm-gateway:0.1.0 .
#
# A tag may be moved, a digest cannot: `docker buildx imagetools inspect vllm/vllm-openai:v0.32.0` shows it.
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0
ARG VLLM_DIGEST=""
FROM ${VLLM_IMAGE}${VLLM_DIGEST:+@${VLLM_DIGEST}}

ARG RAY_VERSION=2.60.0
ARG UID=1000
ARG REVISION=""
LABEL org.opencontainers.image.title="ray-llm-gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"

# Installs what the image lacks of the list that is tested, each file by its hash. The image's own packages stay as
# they are, but for Ray: all nodes need the same version. What conflicts fails the build here, not an engine later.
WORKDIR /app
COPY requirements/gpu.lock requirements/missing.py requirements/
RUN python3 -m pip check > conflicts.txt || true \
    && python3 requirements/missing.py requirements/gpu.lock ray > requirements/missing.lock \
    && python3 -m pip install --no-cache-dir --no-deps --require-hashes -r requirements/missing.lock \
    && test "$(python3 -c 'import ray; print(ray.__version__)')" = "${RAY_VERSION}"
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY deployments deployments
COPY configs configs
COPY models/demo models/demo
RUN python3 -m pip install --no-cache-dir --no-deps --no-build-isolation . \
    && rm -r gateway deployments \
    && { python3 -m pip check > after.txt || true; } \
    && ! grep --invert-match --line-regexp --fixed-strings --file conflicts.txt after.txt \
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
    RAY_gcs_rpc_server_reconnect_timeout_s=600 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1

USER ${UID}
EXPOSE 8000 8265
HEALTHCHECK --start-period=20m --interval=10s --timeout=3s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]

ENTRYPOINT ["serve"]
CMD ["run", "configs/prod.yaml"]
