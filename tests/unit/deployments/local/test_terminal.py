"""What a local gateway prints while it starts."""

from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from deployments.local.terminal import StartProgress


def test_each_change_is_a_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """States that last are not repeated, and there is no bar."""
    with StartProgress.shown(2) as progress:
        for state in ("deploying", "deploying", "running"):
            progress.show({"m": state})
            progress.count(1, "m: its engine is starting")

    lines = [line.split(" s  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["m: deploying", "m: running"]


def test_a_terminal_shows_how_many_models_are_up() -> None:
    """Below the lines, with the one that is awaited."""
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=80, markup=False)
    columns = TextColumn(
        "{task.completed:g} of {task.total:g} {task.fields[awaited]}", markup=False
    )
    with Progress(columns, console=console, auto_refresh=False) as bar:
        progress = StartProgress(3, bar)
        progress.show({"m": "running"})
        progress.count(1, "n: [starting]")
        bar.refresh()

    assert "m: running" in out.getvalue()
    assert "1 of 3 n: [starting]" in out.getvalue()
