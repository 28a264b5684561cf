"""Scripts that use the installed vLLM, each in a process of its own.

Importing vLLM changes much in a process, and takes it many seconds. So one process that does
nothing else imports it once, and forks for each script.

`python -m tests.contract.with_vllm` is that process: it reads a script and its arguments from each
line of its standard input, as JSON, and writes what became of it.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
MODULE = "import runpy, sys; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
"""A script that runs the module that its first argument names."""


def run_script(script: str, *arguments: str) -> CompletedProcess[str]:
    """Run a script as `python -c` would, where vLLM has been imported."""
    return _ask(script, ["-c", *arguments])


def run_module(module: str, *arguments: str) -> CompletedProcess[str]:
    """Run a module as `python -m` would, where vLLM has been imported."""
    return _ask(MODULE, [module, *arguments])


def _ask(script: str, arguments: list[str]) -> CompletedProcess[str]:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdin.write(json.dumps([script, arguments]) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
    except BaseException:
        _server.cache_clear()  # its answer must not be taken for the next script's
        server.kill()
        raise
    assert answer, "the process that has imported vLLM has ended"
    return CompletedProcess(arguments, *json.loads(answer))


@cache
def _server() -> "subprocess.Popen[str]":
    """The process of this run of tests; it ends with it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.with_vllm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    return server


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Run one script after the other until there are no more."""
    for line in requests:
        script, arguments = json.loads(line)
        json.dump(_run_forked(script, arguments), answers)
        answers.write("\n")
        answers.flush()


def _run_forked(script: str, arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        pid = os.fork()
        if not pid:
            os._exit(_run(script, arguments, output.fileno(), errors.fileno()))
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), output.read(), errors.read()


def _run(script: str, arguments: list[str], output: int, errors: int) -> int:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    sys.stdin, sys.stdout, sys.stderr = (open(n, m) for n, m in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115, PTH123 - until the process ends
    sys.argv = arguments
    code: Any = 0
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})  # noqa: S102 - a test's
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - as `python -c` does
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed on import is no answer
    serve(sys.stdin, answers)
