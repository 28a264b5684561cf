"""Two coding agents, each with one task: read a file with its own tool, and say what is in it.

The demo model knows both tasks, the tools of these versions, and a few notes by heart. Which note
is in the file is drawn by lot. The commands are found in the folder that `CONFORMANCE_COMMANDS`
names.
"""

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance.checks import CheckTarget

CLAUDE_TASK = "Read notes.txt and say what is in it."
CODEX_TASK = "Run cat notes.txt and say what it prints."
NOTES = (
    "The heron sleeps by the river.",
    "The owl reads in the old tower.",
    "The raven counts the winter stars.",
)
ANSWER_TOKENS = 4096
"""Of Claude Code's own accord, it would leave room for 32,000."""
CHECK_TIMEOUT_S = 900
AGENT_TIMEOUT_S = 420
CODEX_CONFIG = """\
model = "{model}"
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{base_url}"
wire_api = "responses"
env_key = "GATEWAY_KEY"
request_max_retries = 0
stream_max_retries = 0
stream_idle_timeout_ms = 400000
"""


@dataclass(frozen=True, slots=True)
class AgentHome:
    """Folders of an agent: its own, and the one with its task."""

    home: Path
    task: Path
    note: str

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run an agent to its end; what it prints must have the note in it."""
        program = str(Path(os.environ["CONFORMANCE_COMMANDS"]) / command[0])
        inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        done = subprocess.run(
            [program, *command[1:]],
            cwd=self.task,
            env={**inherited, "HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=AGENT_TIMEOUT_S,
            check=False,
        )
        shown = f"{done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"
        assert done.returncode == 0, shown
        assert self.note in done.stdout, shown


@contextmanager
def agent_home() -> Iterator[AgentHome]:
    """Fresh folders for a run."""
    with tempfile.TemporaryDirectory(prefix="agent-") as directory:
        note = random.choice(NOTES)  # noqa: S311 - no secret
        made = AgentHome(Path(directory) / "home", Path(directory) / "task", note)
        made.home.mkdir()
        made.task.mkdir()
        (made.task / "notes.txt").write_text(f"{note}\n")
        yield made


def check_claude_code(target: CheckTarget) -> None:
    environment = {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "ANTHROPIC_MODEL": target.model,
        "ANTHROPIC_SMALL_FAST_MODEL": target.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "API_TIMEOUT_MS": "400000",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(ANSWER_TOKENS),
    }
    with agent_home() as home:
        home.run(["claude", "-p", CLAUDE_TASK], environment)


def check_codex(target: CheckTarget) -> None:
    with agent_home() as home:
        folder = home.home / ".codex"
        folder.mkdir()
        config = CODEX_CONFIG.format(model=target.model, base_url=target.base_url)
        (folder / "config.toml").write_text(config)
        options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        home.run(["codex", "exec", *options, CODEX_TASK], {"GATEWAY_KEY": "any"})
