"""The deployment of the check: one model with an adapter, which scales from one replica to two."""

MODEL = "check"
ADAPTER = "check-lora"
GPU_CPUS = 1
CPU_CPUS = 0.5
SHARE = 0.4
"""Part of the only GPU that each of two replicas gets."""
SLOTS = 4
"""Sequences of a replica: few, so that little load scales it."""
MAX_LEN = 1024
QUEUE_S = 300
"""Longer than any step: what waits for the second replica is not rejected."""


def model_entry(source: str, adapter: str, gpus: int) -> dict[str, object]:
    """The entry of a model on so many GPUs; on none, it runs on the CPU."""
    entry: dict[str, object] = {
        "name": MODEL,
        "engine": "vllm",
        "source": source,
        "max_model_len": MAX_LEN,
        "adapters": [{"name": ADAPTER, "source": adapter}],
        "autoscaling": {"min": 1, "max": 2, "max_wait_s": 1, "scale_down_delay_s": 3600},
        "queue": {"max_wait_s": QUEUE_S},
        "engine_args": {"max_num_seqs": SLOTS},
    }
    if not gpus:
        arguments = {"max_num_seqs": SLOTS, "enforce_eager": True, "dtype": "float32"}
        more = {"env": {"VLLM_CPU_KVCACHE_SPACE": "1"}, "engine_args": arguments}
        return {**entry, "accelerator": "cpu", "cpus_per_worker": CPU_CPUS, **more}
    entry |= {"accelerator": "gpu", "cpus_per_worker": GPU_CPUS}
    return entry if gpus > 1 else {**entry, "gpu_fraction": SHARE}


def tensor_entry(entry: dict[str, object]) -> dict[str, object]:
    """The same model on two GPUs together, without its adapter."""
    kept = {name: value for name, value in entry.items() if name not in {"adapters", "autoscaling"}}
    return {**kept, "parallelism": {"tensor": 2}, "replicas": 1}
