"""Suites that are pytest's: OpenAI's own tests of its SDK, and LangChain's standard tests."""

import os
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from conformance.checks import WHY_CHARACTERS, CheckResult, CheckTarget
from conformance.model_proxy import model_proxy

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 1200
OPENAI_TESTS = (
    *("chat/test_completions", "chat/completions/test_messages", "test_completions"),
    *("test_models", "test_embeddings", "test_responses", "responses/test_input_items"),
    *("responses/test_input_tokens", "test_files", "test_batches", "test_conversations"),
    *("conversations/test_items", "test_uploads", "uploads/test_parts", "test_vector_stores"),
    *("vector_stores/test_files", "vector_stores/test_file_batches", "audio/test_speech"),
    *("audio/test_transcriptions", "audio/test_translations", "audio/test_voices"),
    *("audio/test_voice_consents", "test_moderations", "test_images"),
)
"""Files of OpenAI's tests, below `tests/api_resources`: the API that others serve, too."""


def openai_tests(python: Path, target: CheckTarget, directory: Path) -> list[CheckResult]:
    """Results of OpenAI's own tests, a result for each file; the tests are downloaded."""
    source = _downloaded_openai(python, directory)
    files = [f"tests/api_resources/{name}.py" for name in OPENAI_TESTS]
    arguments = ["--override-ini=addopts=", "-n", "2", *files]
    with model_proxy(target) as url:
        environment = {"TEST_API_BASE_URL": url}
        cases = _run(python, arguments, source, directory / "openai.xml", environment)
        return list(_by_file(list(cases)))


def langchain_tests(python: Path, target: CheckTarget, directory: Path) -> list[CheckResult]:
    """Results of LangChain's standard tests, one for each test."""
    arguments = [
        *("-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider"),
        *("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"),
        *("-o", "asyncio_default_fixture_loop_scope=session"),
        "conformance/clients/langchain_standard.py",
    ]
    environment = {
        "CONFORMANCE_URL": target.url,
        "CONFORMANCE_MODEL": target.model,
        "CONFORMANCE_EMBEDDING_MODEL": target.embedding_model,
    }
    cases = _run(python, arguments, ROOT, directory / "langchain.xml", environment)
    return [
        CheckResult(_test_name(case), int(not why), int(bool(why)), why or "")
        for case in cases
        if (why := _failure(case)) is not None
    ]


def _downloaded_openai(python: Path, directory: Path) -> Path:
    """The folder with the source of the SDK that `python` has installed, its tests included."""
    command = [str(python), "-c", "import openai; print(openai.__version__)"]
    version = subprocess.check_output(command, text=True).strip()
    source = directory / f"openai-{version}"
    if not source.exists():
        subprocess.run(
            [
                *(str(python), "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--no-binary", "openai", "--dest", str(directory), f"openai=={version}"),
            ],
            check=True,
        )
        with tarfile.open(directory / f"openai-{version}.tar.gz") as archive:
            archive.extractall(directory, filter="data")
    return source


def _run(
    python: Path,
    arguments: Sequence[str],
    directory: Path,
    report: Path,
    environment: Mapping[str, str],
) -> Iterator[ET.Element]:
    """Run pytest; the test cases of its report."""
    report.unlink(missing_ok=True)
    with report.with_suffix(".log").open("w") as log:
        subprocess.run(
            [str(python), "-m", "pytest", "-q", f"--junitxml={report}", *arguments],
            cwd=directory,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            timeout=TIMEOUT_S,
            check=False,
        )
    return ET.parse(report).iter("testcase")  # noqa: S314 - pytest has just written it


def _by_file(cases: Sequence[ET.Element]) -> Iterator[CheckResult]:
    for name in OPENAI_TESTS:
        module = f"tests.api_resources.{name.replace('/', '.')}"
        own = [case for case in cases if case.get("classname", "").rpartition(".")[0] == module]
        whys = [why for case in own if (why := _failure(case)) is not None]
        failed = sum(1 for why in whys if why)
        first = next((why for why in whys if why), "")
        yield CheckResult(name, len(whys) - failed, failed, first)


def _test_name(case: ET.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}"


def _failure(case: ET.Element) -> str | None:
    """Why a test failed; empty for one that passed, None for one that was skipped."""
    for outcome in case:
        if outcome.tag == "skipped":
            # LangChain marks what it cannot expect of a model as xfail: that is no failure, either
            return None
        if outcome.tag in {"failure", "error"}:
            return " ".join((outcome.get("message") or "failed").split())[:WHY_CHARACTERS]
    return ""
