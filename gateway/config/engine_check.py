"""Validation of `engine_args` by vLLM itself, where it is installed: in a process of its own.

What vLLM says is kept in a file, so that the next check of the same arguments takes no time. A
check that takes too long, or fails, is left out: the table of arguments has been consulted anyway.
"""

import importlib.util
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from pydantic import JsonValue, TypeAdapter

from gateway.child_process import module_command, module_environment
from gateway.config.engine_arguments import installed_vllm
from gateway.config.hardware import Cpu
from gateway.config.model_paths import found_path, located_arguments, source_roots
from gateway.config.references import has_reference
from gateway.config.secrets import literal_secrets
from gateway.config.strict import FieldError, Strict
from gateway.config.vllm import VllmEntry

MODULE = "deployments.engines.vllm.check"
TIMEOUT_S = 60
MAX_KEPT = 500
"""Answers that are kept; a file that has more is begun anew."""


_NAMED = re.compile(r"engine_args: argument --([a-z0-9-]+)[^:]*: (.*)")
"""Error of vLLM's command line."""


class EngineCheck(Strict):
    """Arguments of one model, as its engine would give them to vLLM."""

    arguments: dict[str, JsonValue]
    on_cpu: bool

    @classmethod
    def of(cls, entry: VllmEntry, roots: Sequence[Path]) -> "EngineCheck":
        """The arguments that are known before the engine runs: no references, and no secrets."""
        arguments: dict[str, JsonValue] = {
            "model": str(found_path(entry.source, roots) or entry.source),
            "max_model_len": entry.max_model_len,
        }
        known = {
            name: value
            for name, value in {**arguments, **located_arguments(entry.engine_args, roots)}.items()
            if not has_reference(value) and not any(literal_secrets(value, (name,)))
        }
        return cls(arguments=known, on_cpu=isinstance(entry.accelerator, Cpu))


CHECKS = TypeAdapter(list[EngineCheck])
Answers = Mapping[str, str]
Run = Callable[[Sequence[EngineCheck]], Sequence[str]]


class CheckFailed(Exception):
    """vLLM could not be asked; the message says why."""


def engine_mistakes(
    checks: Sequence[EngineCheck], cache: Path, run: Run, version: str
) -> Iterator[str]:
    """What vLLM finds wrong with each; answers are read from `cache`, and new ones written to it.

    Raises:
        CheckFailed: vLLM could not be asked.
    """
    kept = _read(cache)
    keys = [_key(each, version) for each in checks]
    if missing := [each for each, key in zip(checks, keys, strict=True) if key not in kept]:
        answers = dict(zip((_key(each, version) for each in missing), run(missing), strict=True))
        kept = {**(kept if len(kept) < MAX_KEPT else {}), **answers}
        _write(cache, kept)
    return (kept[key] for key in keys)


def ask_vllm(
    entries: Sequence[VllmEntry], warn: Callable[[str], None]
) -> Sequence[FieldError | None]:
    """What the installed vLLM finds wrong with each entry; nothing where none is installed."""
    version = installed_vllm()
    if not (entries and version and _is_importable("vllm")):
        return ()
    checks = [EngineCheck.of(entry, source_roots()) for entry in entries]
    try:
        answers = engine_mistakes(checks, cache_file(os.environ), run_vllm, version)
        return [located(answer) if answer else None for answer in answers]
    except CheckFailed as error:
        warn(f"{error}: `engine_args` are checked by the table of its arguments alone")
        return ()


def _is_importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def located(answer: str) -> FieldError:
    """A mistake that vLLM names, at the field that it is about."""
    if named := _NAMED.fullmatch(answer):
        return FieldError(("engine_args", named[1].replace("-", "_")), named[2])
    path = ("max_model_len",) if answer.startswith("User-specified max_model_len") else ()
    return FieldError(path, f"vLLM refuses it: {answer.removeprefix('engine_args: ')}")


def run_vllm(checks: Sequence[EngineCheck]) -> Sequence[str]:
    """Ask vLLM in a process of its own.

    Raises:
        CheckFailed: it does not answer.
    """
    environ = {
        **module_environment(os.environ),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
    try:
        ended = subprocess.run(
            module_command(MODULE),
            input=CHECKS.dump_json(list(checks)),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
            env=environ,
        )
        return msgspec.json.decode(ended.stdout.splitlines()[-1], type=list[str])
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"vLLM did not answer within {TIMEOUT_S} s") from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CheckFailed(f"vLLM could not be asked: {''.join(last)}") from None
    except (OSError, IndexError, msgspec.MsgspecError) as error:
        raise CheckFailed(f"vLLM could not be asked: {error}") from None


def cache_file(environ: Mapping[str, str]) -> Path:
    """File in which answers are kept."""
    root = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/nonexistent")) / ".cache"
    return Path(root) / "ray-llm-gateway" / "engine-checks.json"


def _key(check: EngineCheck, version: str) -> str:
    """Key of an answer: it holds for this vLLM, these arguments, and the files they name."""
    parts = [version, check.model_dump(), _stamps(check)]
    content = msgspec.json.encode(parts, order="deterministic")
    return sha256(content).hexdigest()


def _stamps(check: EngineCheck) -> list[float]:
    """Times at which the files that are named were changed last."""
    paths = [Path(v) for v in check.arguments.values() if isinstance(v, str) and v[:1] == "/"]
    files = [file for path in paths for file in (path, path / "config.json")]
    return [file.stat().st_mtime for file in files if os.access(file, os.R_OK)]


def _read(cache: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}


def _write(cache: Path, kept: Mapping[str, str]) -> None:
    """Replace the file; where that is impossible, the next check asks again."""
    part = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_bytes(msgspec.json.encode(kept))
        part.replace(cache)
    except OSError:
        part.unlink(missing_ok=True)
