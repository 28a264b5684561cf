"""Tests of the `gateway` command."""

import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from gateway.cli import COMMANDS, Command, asked_for
from gateway.commands.check import _folding_table
from gateway.config.projects import KeyEntry
from gateway.environment import HAPROXY_BINARY, recommended
from gateway.reference.error_tables import error_tables
from tests.unit.command_line import app
from tests.unit.projects import hash_of

CONFIG = """\
applications:
  - {name: gateway, import_path: deployments.app:gateway}
  - name: large
    import_path: deployments.app:model
    route_prefix: null
    args:
      name: org/large
      engine: vllm
      source: org/large-weights
      autoscaling: {min: 0, max: 3}
      parallelism: {tensor: 4, pipeline: 2}
      accelerator: {type: H100, per_node: 4}
      cpus_per_worker: 2
  - name: little
    import_path: deployments.app:model
    route_prefix: null
    args: {name: little, engine: sim, replicas: 3}
http_options: {host: 127.0.0.1}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Valid file with a model over two nodes and a simulated model."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def gateway(*arguments: str) -> Result:
    """Run the command with these arguments."""
    return CliRunner().invoke(app, arguments)


def cells(line: str) -> list[str]:
    """Cells of one line of a printed table."""
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_check_prints_the_plan(config: Path) -> None:
    """The table has a row for each model; the totals follow."""
    result = gateway("check", str(config))
    rows = [cells(line) for line in result.stdout.splitlines() if line.startswith("│")]
    assert rows == [
        ["org/large", "vllm", "org/large-weights", "0-3", "8", "8 H100", "16", "ray", "PACK"],
        ["little", "sim", "-", "3", "1", "0", "0.1", "-", "-"],
    ]
    assert "at min replicas: 0 GPUs, 0.5 CPUs" in result.stdout
    assert "at max replicas: 24 GPUs, 48.5 CPUs" in result.stdout
    assert "while entries change: 8 more GPUs, 16.3 more CPUs" in result.stdout
    assert result.exit_code == 0


def test_check_prints_json(config: Path) -> None:
    """The plan as JSON has the same numbers."""
    result = gateway("check", str(config), "--json")
    plan = json.loads(result.stdout)
    assert (plan["min_gpus"], plan["max_gpus"]) == (0, 24)
    assert (plan["min_cpus"], plan["max_cpus"]) == (0.5, 48.5)
    assert plan["models"][0] == {
        "model": "org/large",
        "application": "large",
        "engine": "vllm",
        "source": "org/large-weights",
        "min_replicas": 0,
        "max_replicas": 3,
        "workers": 8,
        "gpus": 8,
        "cpus": 16,
        "accelerator": "H100",
        "executor": "ray",
        "placement": "PACK",
        "surge_replicas": 1,
    }


NAMED = """\
    deployments:
      - name: Router
        user_config:
          aliases: {gpt: chat}
          splits:
            chat: {models: {org/large: 3, little: 1}, shadow: {model: legal, fraction: 0.05}}
          fallbacks: {org/large: [little, legal]}
"""


@pytest.fixture
def named(config: Path) -> Path:
    """The file with names of every kind."""
    one_line = "{name: gateway, import_path: deployments.app:gateway}\n"
    lines = "name: gateway\n    import_path: deployments.app:gateway\n" + NAMED
    adapters = ", adapters: [{name: legal, source: x}]}"
    config.write_text(CONFIG.replace(one_line, lines).replace(", replicas: 3}", adapters))
    return config


def test_check_prints_the_names(named: Path) -> None:
    """Models with fallbacks, adapters, aliases and splits are listed with their targets."""
    result = gateway("check", str(named))
    rows = [cells(line) for line in result.stdout.splitlines() if line.startswith("│")]
    assert rows[2:] == [
        ["org/large", "model", "-", "little, legal", "-"],
        ["legal", "adapter", "little", "-", "-"],
        ["gpt", "alias", "chat", "-", "-"],
        ["chat", "split", "org/large 75 %, little 25 %", "-", "legal 5 %"],
    ]


def test_check_prints_the_names_as_json(named: Path) -> None:
    """The plan as JSON has the same names."""
    names = json.loads(gateway("check", str(named), "--json").stdout)["names"]
    assert [name["kind"] for name in names] == ["model", "adapter", "alias", "split"]
    assert names[0]["fallbacks"] == ["little", "legal"]
    assert names[3] == {
        "name": "chat",
        "kind": "split",
        "shares": {"org/large": 0.75, "little": 0.25},
        "fallbacks": [],
        "shadow": {"legal": 0.05},
    }


def test_check_prints_each_mistake_on_one_line(config: Path) -> None:
    """Errors go to stderr, unwrapped however long, and no plan is printed."""
    name = "[bold]" + "x" * 200
    wrong = CONFIG.replace("engine: vllm", "enjine: vllm").replace("name: large", f"name: '{name}'")
    config.write_text(wrong.replace("replicas: 3", "replicas: 0"))
    result = gateway("check", str(config))
    assert result.stderr.splitlines() == [
        f'{config}:6: applications[1] "{name}": args.engine: is missing; known: vllm, sim',
        (
            f'{config}:17: applications[2] "little": args.replicas:'
            " should be greater than or equal to 1, found 0"
        ),
    ]
    assert result.stdout == ""
    assert result.exit_code == 1


def test_env_prints_what_a_shell_can_evaluate() -> None:
    """`eval "$(gateway env)"` sets every recommended variable, spaces and all."""
    script = gateway("env").stdout + "env -0"
    printed = subprocess.check_output(["/bin/sh", "-c", script], env={}, text=True)
    variables = dict(line.split("=", 1) for line in printed.split("\0") if "=" in line)
    binary = variables[HAPROXY_BINARY]
    assert recommended(binary).items() <= variables.items()
    assert os.access(binary, os.X_OK)


def test_docs_prints_the_tables_of_a_topic() -> None:
    """Each table is below its name."""
    assert gateway("docs", "errors").stdout.startswith("## gateway\n\n| status | `code` |")
    assert "\n## Autoscaling\n" in gateway("docs").stdout


def test_docs_updates_the_pages_of_a_folder(tmp_path: Path) -> None:
    """The current table replaces the one between its marks; everything else stays."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: errors gateway -->\nold\n<!-- end of table -->\nafter\n")
    result = gateway("docs", "--update", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert page.read_text() == (
        "before\n<!-- table: errors gateway -->\n\n"
        + error_tables()["gateway"]
        + "\n\n<!-- end of table -->\nafter\n"
    )


def test_version_is_printed() -> None:
    """`--version` prints the package and its version."""
    name, number = gateway("--version").stdout.split()
    assert name == "ray-llm-gateway"
    assert number.count(".") == 2


def test_the_command_starts_without_heavy_imports() -> None:
    """Neither Ray nor vLLM nor torch is imported, so a check is fast."""
    code = "import gateway.cli, sys; print({'ray', 'vllm', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_check_folds_long_names_and_cuts_none(config: Path) -> None:
    """In a pipe, a line is as long as it needs to be."""
    name = "org/" + "a-very-long-name-" * 14
    config.write_text(CONFIG.replace("name: org/large", f"name: {name}"))
    result = gateway("check", str(config))
    assert name in result.stdout
    assert "…" not in result.stdout


def test_a_narrow_table_folds_names() -> None:
    """In a terminal, a name takes several lines, and all of it can be read."""
    table = _folding_table("model", "source")
    table.add_row("m" * 30, "s" * 30)
    console = Console(width=24, file=StringIO())
    console.print(table)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert (printed.count("m") - 1, printed.count("s") - 1) == (30, 30)


def test_check_warns_of_secrets_on_stderr(config: Path) -> None:
    """The file is still valid, and the plan is all that goes to stdout."""
    config.write_text(CONFIG.replace("replicas: 3}", "replicas: 3, env: {HF_TOKEN: abcdef}}"))
    result = gateway("check", str(config), "--json")
    assert json.loads(result.stdout)["routers"] == {
        "min_replicas": 1,
        "max_replicas": 1,
        "cpus": 0.2,
        "surge_replicas": 1,
    }
    assert result.stderr.startswith(f'warning: {config}:17: applications[2] "little": args.env.HF_')
    assert "abcdef" not in result.output
    assert result.exit_code == 0


def test_a_new_key_is_printed_with_its_hash() -> None:
    """What a projects file needs goes to stdout, too; the file accepts it, name and all."""
    result = gateway("keys", "new", "--name", 'CI "main"')
    key, line = result.stdout.splitlines()
    (entry,) = yaml.safe_load(line)
    assert entry == {"hash": hash_of(key), "name": 'CI "main"'}
    KeyEntry.model_validate(entry)
    assert key not in result.stderr
    assert gateway("keys", "new").stdout.splitlines()[0] != key


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_a_command_is_listed_with_its_own_help(name: str, command: Command) -> None:
    """What the list of commands says without loading them is the first sentence of their help."""
    shown = gateway(name, "--help").stdout

    assert " ".join(command.help.split()) in " ".join(re.sub(r"[│╭╰─]", "", shown).split())


@pytest.mark.parametrize(
    ("arguments", "environ", "command"),
    [
        (["status", "--json"], {}, "status"),
        (["--version"], {}, ""),
        ([], {}, ""),
        ([], {"COMP_WORDS": "gateway keys cr"}, "keys"),
        ([], {"_TYPER_COMPLETE_ARGS": "gateway top --"}, "top"),
        ([], {"_TYPER_COMPLETE_ARGS": "gateway "}, ""),
    ],
)
def test_the_command_asked_for_is_known_before_any_is_loaded(
    arguments: list[str], environ: dict[str, str], command: str
) -> None:
    """By the arguments, or by the line that a shell wants completed."""
    assert asked_for(arguments, environ) == command


@pytest.mark.parametrize(("command", "is_light"), [("status", True), ("check", False)])
def test_what_asks_a_running_gateway_imports_little(command: str, *, is_light: bool) -> None:
    """It answers at once: validation, Ray and HTTP servers take seconds to import."""
    code = (
        "import sys; sys.argv = ['gateway', sys.argv[1], '--help']\n"
        "from gateway.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(sorted({'ray', 'aiohttp', 'fastapi', 'gateway.config.loader'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, command], capture_output=True, text=True, check=True
    )

    assert (result.stdout.splitlines()[-1] == "[]") is is_light


def test_a_shell_completes_commands_and_options() -> None:
    """As the script of `gateway --show-completion` asks."""
    said = {}
    for line in ("gateway st", "gateway status --u"):
        ended = subprocess.run(
            [sys.executable, "-m", "gateway.cli"],
            env={
                **os.environ,
                "_GATEWAY_COMPLETE": "complete_bash",
                "COMP_WORDS": line,
                "COMP_CWORD": str(line.count(" ")),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        said[line] = ended.stdout.split()

    assert said == {"gateway st": ["stop", "status"], "gateway status --u": ["--url"]}
