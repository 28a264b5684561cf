"""All suites, with one interface: a name, what it is about, an installation, and a run."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conformance.checks import CheckResult, CheckTarget
from conformance.environments import ROOT, NodeEnvironment, PythonEnvironment
from conformance.pytest_suites import langchain_tests, openai_tests

TIMEOUT_S = 3600
CLIENTS = PythonEnvironment("clients")
NODE = NodeEnvironment()


class Suite(Protocol):
    """A suite of checks."""

    @property
    def name(self) -> str:
        """Its name on the command line and in `known_failures.yaml`."""

    @property
    def title(self) -> str:
        """Its name in the table, with the versions it is run with."""

    def install(self) -> None:
        """Make its environment."""

    def run(self, target: CheckTarget, directory: Path) -> list[CheckResult]:
        """Run all checks against a gateway; files that it needs or leaves lie in `directory`."""


@dataclass(frozen=True, slots=True)
class PythonSuite:
    """A module of `clients/` in an environment of its own."""

    name: str
    about: str
    module: str
    environment: PythonEnvironment = CLIENTS
    packages: Sequence[str] = ()
    node: NodeEnvironment | None = None

    @property
    def title(self) -> str:
        """What it is about, with versions."""
        return _titled(self.about, self.node or self.environment, self.packages)

    def install(self) -> None:
        """Make its environment, and Node's if it runs commands of that."""
        self.environment.install()
        if self.node:
            self.node.install()

    def run(self, target: CheckTarget, directory: Path) -> list[CheckResult]:
        """Run the module's checks in a process."""
        output = directory / f"{self.name}.json"
        command = [
            *(str(self.environment.python), "-m", "conformance.run_checks"),
            *(f"conformance.clients.{self.module}", "--url", target.url, "--output", str(output)),
            *("--model", target.model, "--embedding-model", target.embedding_model),
            *(("--spec", target.spec) if target.spec else ()),
        ]
        commands = {"CONFORMANCE_COMMANDS": str(self.node.commands)} if self.node else {}
        return _results(command, output, commands)


@dataclass(frozen=True, slots=True)
class PytestSuite:
    """Tests that others have written, run by pytest."""

    name: str
    about: str
    tests: Callable[[Path, CheckTarget, Path], list[CheckResult]]
    packages: Sequence[str]
    environment: PythonEnvironment = CLIENTS

    @property
    def title(self) -> str:
        """What it is about, with versions."""
        return _titled(self.about, self.environment, self.packages)

    def install(self) -> None:
        """Make its environment."""
        self.environment.install()

    def run(self, target: CheckTarget, directory: Path) -> list[CheckResult]:
        """Run the tests in a process."""
        return self.tests(self.environment.python, target, directory)


@dataclass(frozen=True, slots=True)
class NodeSuite:
    """A script of `node/`."""

    name: str
    about: str
    script: str
    packages: Sequence[str]

    @property
    def title(self) -> str:
        """What it is about, with versions."""
        return _titled(self.about, NODE, self.packages)

    def install(self) -> None:
        """Install Node's packages."""
        NODE.install()

    def run(self, target: CheckTarget, directory: Path) -> list[CheckResult]:
        """Run the script."""
        output = directory / f"{self.name}.json"
        command = [
            *("node", str(NODE.folder / self.script), "--url", target.url, "--model", target.model),
            *("--embedding-model", target.embedding_model, "--output", str(output)),
        ]
        return _results(command, output, {})


def _results(
    command: Sequence[str], output: Path, environment: Mapping[str, str]
) -> list[CheckResult]:
    output.unlink(missing_ok=True)
    with output.with_suffix(".log").open("w") as log:
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=log,
            stderr=log,
            timeout=TIMEOUT_S,
            check=False,
        )
    if not output.exists():
        tail = output.with_suffix(".log").read_text()[-300:]
        return [CheckResult("the suite itself", 0, 1, " ".join(tail.split()))]
    return [CheckResult.from_json(each) for each in json.loads(output.read_text())]


def _titled(
    about: str, environment: PythonEnvironment | NodeEnvironment, packages: Sequence[str]
) -> str:
    versions = ", ".join(f"{package} {environment.version(package)}" for package in packages)
    return f"{about}: {versions}" if versions else about


AGENTS = "agents"
"""The suite that only this repository's model knows what to do with."""
SUITES: Sequence[Suite] = (
    PythonSuite(
        "table",
        "The table of requests, in OpenAI's and Anthropic's types",
        "requests_table",
        packages=("openai", "anthropic"),
    ),
    PythonSuite("mutated", "Mutated requests on all routes", "mutated_requests"),
    PythonSuite("openai-spec", "OpenAI's specification", "openai_spec"),
    PythonSuite("openresponses", "Open Responses' cases", "openresponses"),
    PythonSuite(
        "openai-python", "OpenAI's Python SDK in use", "openai_python", packages=("openai",)
    ),
    PytestSuite("openai-tests", "OpenAI's own tests of its SDK", openai_tests, ("openai",)),
    PythonSuite(
        "anthropic-python",
        "Anthropic's Python SDK in use",
        "anthropic_python",
        packages=("anthropic",),
    ),
    PytestSuite(
        "langchain",
        "LangChain's standard tests",
        langchain_tests,
        ("langchain-openai", "langchain-tests"),
    ),
    PythonSuite("litellm", "LiteLLM", "litellm", packages=("litellm",)),
    PythonSuite("pydantic-ai", "Pydantic AI", "pydantic_ai", packages=("pydantic-ai-slim",)),
    PythonSuite(
        "openai-agents", "OpenAI's Agents SDK", "openai_agents", packages=("openai-agents",)
    ),
    PythonSuite(
        "instructor",
        "Instructor",
        "instructor",
        PythonEnvironment("instructor"),
        packages=("instructor", "openai"),
    ),
    PythonSuite(
        "llama-index",
        "LlamaIndex",
        "llama_index",
        PythonEnvironment("llama_index"),
        packages=("llama-index-llms-openai-like", "openai"),
    ),
    NodeSuite("openai-node", "OpenAI's SDK for JavaScript", "openai.mjs", ("openai",)),
    NodeSuite(
        "anthropic-node", "Anthropic's SDK for JavaScript", "anthropic.mjs", ("@anthropic-ai/sdk",)
    ),
    NodeSuite(
        "ai-sdk",
        "Vercel's AI SDK",
        "ai_sdk.mjs",
        ("ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai"),
    ),
    PythonSuite(
        AGENTS,
        "Coding agents with a task",
        "agents",
        node=NODE,
        packages=("@anthropic-ai/claude-code", "@openai/codex"),
    ),
)
"""All suites, in the order of the table."""
