"""docs/production.md: what it gives to copy works."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.simulation.trace import read_trace
from tests.unit.command_line import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "production.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's code in one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_script_makes_a_trace_to_simulate(tmp_path: Path) -> None:
    """Prompts with the same beginning share their first blocks, and times are kept."""
    (script,) = blocks("python")
    shared = "You are a helpful assistant. " * 200
    log = [
        {"time_s": 1.5, "prompt": shared + "One?", "output_tokens": 7},
        {"time_s": 2.0, "prompt": shared + "Two?", "output_tokens": 9},
    ]
    program = tmp_path / "trace.py"
    program.write_text(script)
    done = subprocess.run(
        [sys.executable, str(program)],
        input="\n".join(map(json.dumps, log)),
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["hash_ids"][:2] == second["hash_ids"][:2]
    assert first["hash_ids"][-1] != second["hash_ids"][-1]
    trace = tmp_path / "trace.jsonl"
    trace.write_text(done.stdout)
    workload = read_trace(trace)
    assert [request.output_tokens for request in workload.requests] == [7, 9]
    assert workload.requests[1].arrived_s - workload.requests[0].arrived_s == pytest.approx(0.5)


def test_every_option_of_the_simulation_exists() -> None:
    """The commands for capacity name options that `gateway simulate` has."""
    commands = re.findall(r"gateway simulate [^\n#`]*(?:\\\n[^\n#]*)?", "".join(blocks("sh")))
    named = set(re.findall(r"--[\w-]+", "".join(commands)))
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["simulate", "--help"]).stdout
    assert named
    assert named <= set(re.findall(r"--[\w-]+", shown))


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_the_overlay_to_start_from_builds(tmp_path: Path) -> None:
    """Image, host, storage class and serve config are those of the overlay."""
    (overlay,) = [block for block in blocks("yaml") if "kind: Kustomization" in block]
    shutil.copytree(ROOT / "configs" / "kubernetes", tmp_path / "kubernetes")
    mine = tmp_path / "kubernetes" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(overlay)
    (mine / "serve.yaml").write_text("applications: []\n")
    command = ["kubectl", "kustomize", str(mine)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objects = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    service = objects["RayService"]["spec"]
    assert service["serveConfigV2"] == "applications: []\n"
    head = service["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["image"].startswith("registry.example.com/ray-llm-gateway:")
    assert objects["PersistentVolumeClaim"]["spec"]["storageClassName"]
    assert objects["HTTPRoute"]["spec"]["hostnames"] == [
        objects["Gateway"]["spec"]["listeners"][0]["hostname"]
    ]
