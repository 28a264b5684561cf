"""`gateway logs`: one request, by what routers keep of it and by the files of the request log."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from gateway.commands.api_client import ApiError, Json
from gateway.commands.console import (
    DEFAULT_ADDRESS,
    AsJson,
    Url,
    operator_client,
    print_json,
    print_plain_table,
)
from gateway.local_files import KEPT_LOGS, TEMPORARY_PREFIX, logs_in, run_directory

RAY = Path("/tmp/ray/session_latest/logs")  # noqa: S108 - where Ray has its logs
SERVE = "serve"
"""Folder of Serve's logs, and of the request log, among them."""
LOG_FILES = "requests_*.jsonl*"
DECISIONS = "decisions"


def logs(
    request_id: Annotated[str, typer.Argument(help="The `x-request-id` of a request's answer.")],
    *,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a router's request log, for requests that routers no longer keep;"
            " repeat for several. Default: the logs of Ray and of `gateway serve` on this machine."
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_ADDRESS,
) -> None:
    """Show one request: where it went and why, how it ended, and its line in the request log.

    All routers are asked, whichever answered it. Exit status 1 if nothing is known of it.
    """
    asked, failure = _asked(url, request_id)
    folders = folder or default_folders()
    lines = list(logged_lines(folders, request_id))
    if not asked and not lines:
        typer.echo(failure, err=True)
        looked = ", ".join(map(str, folders))
        typer.echo(f"no line of a request log in {looked} has this id", err=True)
        raise typer.Exit(1)
    if failure:
        typer.echo(failure, err=True)
    if as_json:
        print_json({"requests": asked, "log": lines})
        return
    for row in asked or lines:
        _print_request(row)
    if asked:
        for line in lines:
            typer.echo(f"request log: {json.dumps(line)}")


def logged_lines(folders: Iterable[Path], request_id: str) -> Iterator[Json]:
    """Lines of the request logs in these folders with this id, the oldest file first."""
    wanted = json.dumps(request_id, ensure_ascii=False).encode()
    files = [file for folder in folders for file in _found_in(folder)]
    for file in sorted(files, key=_changed_s):
        try:
            with file.open("rb") as opened:
                found = [_parsed(written) for written in opened if wanted in written]
        except OSError as error:  # of another user, or rotated just now
            typer.echo(f"{file}: cannot be read: {error.strerror}", err=True)
            continue
        yield from (line for line in found if line.get("request_id") == request_id)


def default_folders() -> list[Path]:
    """Where routers on this machine write their request logs, of those folders that exist."""
    ours = Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*")
    logs = [RAY, *map(logs_in, sorted(ours)), run_directory(os.environ) / KEPT_LOGS]
    return [each / SERVE for each in logs if os.access(each / SERVE, os.R_OK)] or [RAY / SERVE]


def _found_in(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from folder.glob(LOG_FILES)


def _changed_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _parsed(written: bytes) -> Json:
    try:
        line = json.loads(written)
    except ValueError:
        return {}  # it is being written
    return line if isinstance(line, dict) else {}


def _asked(url: str, request_id: str) -> tuple[Sequence[Json], str]:
    """What the routers say of a request, and why they do not, if so."""
    try:
        page = operator_client(url).ask("GET", f"/requests/{quote(request_id, safe='')}")
    except ApiError as error:
        return [], str(error)
    missing = ", ".join(page["missing"])
    return page["data"], f"these routers do not answer: {missing}" if missing else ""


def _print_request(row: Json) -> None:
    state = row.get("state", "ended")
    typer.echo(f"request {row['request_id']}: {state}, {_outcome(row)}")
    told = {name: value for name, value in row.items() if name not in {DECISIONS, "state"}}
    width = max(map(len, told))
    for name, value in told.items():
        if name != "request_id" and value not in ("", None, []):
            typer.echo(f"  {name:<{width}}  {_shown(value)}")
    for number, decision in enumerate(reversed(row.get(DECISIONS, [])), 1):
        _print_decision(number, decision)


def _outcome(row: Json) -> str:
    status = row.get("status") or "none yet"
    return f"{row.get('outcome', 'no outcome yet')}, status {status}"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_decision(number: int, decision: Mapping[str, object]) -> None:
    """Print a decision: the replica of one attempt, and the others that could have had it."""
    typer.echo(
        f"  attempt {number}: replica {decision['replica']}, by {decision['policy']}; waited"
        f" {decision['waited_s']} s; expected {decision['prompt_tokens']} prompt tokens,"
        f" {decision['cached_tokens']} of them cached, first token after {decision['ttft_s']} s"
    )
    if isinstance(actual := decision["actual"], dict):
        typer.echo(
            f"    its engine: {actual['prompt_tokens']} prompt tokens, {actual['cached_tokens']} of"
            f" them cached, first token after {actual['ttft_s']} s,"
            f" {actual['completion_tokens']} tokens{', aborted' * bool(actual['is_aborted'])}"
        )
    candidates = decision["candidates"]
    if isinstance(candidates, list):
        names = ("replica", "cost", "cached_tokens", "running", "waiting", "pending_tokens")
        rows = ([each[name] for name in names] for each in candidates)
        print_plain_table(names, rows, indent=4)
