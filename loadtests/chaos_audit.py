"""Projects of `loadtests.chaos`, and the audit of their ledger afterwards.

Each simulated engine writes every usage record to a file before it reports it, so the files hold
what engines have done, however they died. The ledger must have every record that an engine
has reported, unchanged. Records of its last tenth of a second may have died with an engine that was
killed: for those there must be an estimate, unless their router was killed, too.
"""

import asyncio
import contextlib
import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.identity.api_key import NewKey
from gateway.ledger.row import signed
from gateway.telemetry.usage import UsageRecord
from loadtests.checked_load import Counts, LoadSource
from loadtests.fault_injection import FAULTY_SHARE

Document = dict[str, Any]
REPORTED_S = 0.1
"""Time in which an engine reports what it has written, two frames."""
SETTLE_S = 45.0
"""Time for the last records to reach the ledger."""
MINUTE_S = 60.0
REQUESTS_PER_MINUTE = 240
CONCURRENT_REQUESTS = 8
ROUTERS = 2
MOST_AT_ONCE = ROUTERS * CONCURRENT_REQUESTS
"""Each router counts what it has sent itself, whatever it knows of the other."""
MOST_PER_MINUTE = REQUESTS_PER_MINUTE + MOST_AT_ONCE - CONCURRENT_REQUESTS
"""Routers do not know of what others have running at engines that have not told them yet."""
MOST_AFTER_START = MOST_PER_MINUTE + round(REQUESTS_PER_MINUTE * FAULTY_SHARE)
"""A router that starts does not hear from engines that have gone, or hang, what they had in the
last minute, and the ledger tells it that only by the minute. At most half of all are so at once."""
SENDERS = (
    LoadSource(name="open", api_key="sk-chaos-open", keeps_tokens=True),
    LoadSource(name="limited", api_key="sk-chaos-limited", keeps_tokens=True, clients=20),
)
LIMITED = "proj_limited"
TimesS = Mapping[str, tuple[float, float]]
"""By request id, when its client sent it, and when it had the answer."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt, as the ledger has it."""

    epoch: int
    seq: int
    dispatch_id: int
    request_id: str
    project: str
    is_continuation: bool
    is_estimated: bool
    is_wasted: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    charged_completion_tokens: int

    @property
    def tokens(self) -> tuple[int, int, int]:
        """What the engine is said to have done."""
        return self.prompt_tokens, self.cached_tokens, self.completion_tokens


class Audit(msgspec.Struct, kw_only=True):
    """How a ledger compares with the engines' own records, and with what clients were told."""

    engine_records: int = 0
    """Attempts that engines have written down."""
    rows: int = 0
    """Attempts that the ledger has."""
    differing: int = 0
    """Rows of an engine that its record contradicts, or that it never wrote."""
    gaps: int = 0
    """Records that an engine has reported, and of which the ledger has nothing."""
    only_estimated: int = 0
    """Records that an engine has reported, and that the ledger has as estimates."""
    repeated: int = 0
    """Records of dispatches that an engine had got before: their connection was closed, and the
    router sent them again. They are rows as well."""
    unreported: int = 0
    """Records that engines wrote in their last moments, and that the ledger lacks."""
    estimated: int = 0
    """Attempts that routers have charged by what they relayed."""
    unknown: int = 0
    """Unreported records of which the ledger has nothing at all."""
    not_charged: int = 0
    """Answered requests that nobody was charged for."""
    charged_twice: int = 0
    """Requests of which two attempts were charged from their beginning."""
    other_tokens: int = 0
    """Answered requests that were charged for other tokens than the client got."""
    other_tokens_estimated: int = 0
    """Those among estimated ones."""
    sums_differ: bool = False
    """The ledger's sums by the minute, hour or day are not those of its rows."""
    most_per_minute: int = 0
    """Most requests of the limited project that clients sent within 60 s, and that came to engines;
    its limit is `REQUESTS_PER_MINUTE`."""
    most_at_once: int = 0
    """Most requests of it that ran at the same time, as long as their clients waited for them; its
    limit is `CONCURRENT_REQUESTS`."""
    examples: list[str] = []
    """What is wrong, in words."""

    def is_good(self, routers_killed: int) -> bool:
        """Whether the ledger is true, and limits were exceeded by no more than is stated.

        An answer that has just ended when its router is killed may be charged, and its repetition,
        too; or its engine is killed as well before it has told anybody. Both are rare.
        """
        most_per_minute = MOST_AFTER_START if routers_killed else MOST_PER_MINUTE
        return (
            not (self.differing or self.gaps or self.only_estimated or self.sums_differ)
            and not (self.not_charged or self.other_tokens)
            and max(self.unknown, self.charged_twice) <= routers_killed
            and self.most_per_minute <= most_per_minute
            and self.most_at_once <= MOST_AT_ONCE
        )

    def lines(self) -> list[str]:
        """The audit in words."""
        missing = f"{self.gaps} missing, {self.only_estimated} only estimated"
        ledger = f"{self.rows} rows, {self.estimated} estimated; {self.differing} differ, {missing}"
        tail = f"{self.unreported} unreported at death ({self.unknown} not estimated)"
        tokens = f"{self.other_tokens} for other tokens ({self.other_tokens_estimated} estimated)"
        limits = f"{self.most_at_once} of {CONCURRENT_REQUESTS} at once"
        return [
            f"engines    {self.engine_records} records, {self.repeated} repeated, {tail}",
            f"ledger     {ledger}",
            f"charged    {self.not_charged} not, {self.charged_twice} twice, {tokens}",
            f"limits     {self.most_per_minute} of {REQUESTS_PER_MINUTE} a minute, {limits}",
        ]


def usage_folder(folder: Path) -> Path:
    """Folder in which engines write their records."""
    made = folder / "engines"
    made.mkdir(exist_ok=True)
    return made


def add_projects(document: Document, folder: Path) -> None:
    """Give a gateway two projects and a database in `folder`."""
    limits = {
        "requests_per_minute": REQUESTS_PER_MINUTE,
        "concurrent_requests": CONCURRENT_REQUESTS,
    }
    projects = [
        {
            "name": sender.name,
            "id": f"proj_{sender.name}",
            "keys": [{"hash": NewKey(sender.api_key).hash}],
            "rate_limits": [limits] if f"proj_{sender.name}" == LIMITED else [],
        }
        for sender in SENDERS
    ]
    file = folder / "projects.yaml"
    file.write_text(json.dumps({"projects": projects}))
    gateway, *models = document["applications"]
    prices = {each["name"]: [{"input": 1, "cached_input": 0.1, "output": 2}] for each in models}
    gateway["args"] = {
        "accounts": {"database": f"sqlite:///{folder / 'accounts.db'}", "prices": prices}
    }
    gateway["deployments"][0]["user_config"]["auth"] = {"projects": [str(file)]}


async def settled_audit(folder: Path, counts: Counts, killed_s: Mapping[int, float]) -> Audit:
    """The audit, once it is good or time is up; `killed_s`: when engines were, by process."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + SETTLE_S
    audit = Audit(gaps=1)
    while not audit.is_good(0) and loop.time() < until_s:
        await asyncio.sleep(2)
        with contextlib.suppress(sqlite3.Error):
            records, deaths_s = read_records(folder, killed_s)
            rows, sums_differ = read_ledger(folder)
            audit = audited(records, rows, counts.completion_tokens, deaths_s)
            audit.most_per_minute = most_in_a_minute(records, counts.times_s)
            audit.most_at_once = most_at_once(records, counts.times_s)
            audit.sums_differ = sums_differ
    return audit


def read_records(
    folder: Path, killed_s: Mapping[int, float]
) -> tuple[list[UsageRecord], dict[int, float]]:
    """What engines have written, and when they were killed, by epoch."""
    decoder = msgspec.json.Decoder(UsageRecord)
    records: list[UsageRecord] = []
    deaths_s: dict[int, float] = {}
    for file in usage_folder(folder).iterdir():
        epoch, pid = map(int, file.stem.split("-"))
        if pid in killed_s:
            deaths_s[epoch] = killed_s[pid]
        records += [decoder.decode(line) for line in file.read_bytes().splitlines()]
    return records, deaths_s


def read_ledger(folder: Path) -> tuple[list[Row], bool]:
    """The ledger's rows, and whether its sums are theirs."""
    sums = "sum({}prompt_tokens), sum({}completion_tokens), sum(cost_nano)"
    with sqlite3.connect(folder / "accounts.db") as database:
        database.row_factory = sqlite3.Row
        names = ", ".join(Row.__struct_fields__)
        found = database.execute(f"SELECT {names} FROM usage").fetchall()  # noqa: S608 - our names
        rows = [msgspec.convert(dict(each), Row, strict=False) for each in found]
        of_rows = tuple(
            database.execute(
                f"SELECT {sums.format('charged_', 'charged_')} FROM usage"  # noqa: S608
            ).fetchone()
        )
        of_sums = [
            tuple(database.execute(f"SELECT {sums.format('', '')} FROM usage_{period}").fetchone())  # noqa: S608
            for period in ("minutes", "hours", "days")
        ]
    return rows, any(each != of_rows for each in of_sums)


def audited(
    records: Sequence[UsageRecord],
    rows: Sequence[Row],
    answered: Mapping[str, int],
    deaths_s: Mapping[int, float],
) -> Audit:
    """Compare the ledger with engines' records, and with the tokens of `answered` requests.

    `deaths_s`: when engines were killed, by epoch.
    """
    written = {(each.epoch, each.seq): each for each in records}
    reported = {(row.epoch, row.seq): row for row in rows if not row.is_estimated}
    ids = {row.dispatch_id for row in rows}
    missing = [each for key, each in written.items() if key not in reported]
    tail = [e for e in missing if e.ended_s > deaths_s.get(e.epoch, math.inf) - REPORTED_S]
    lost = [each for each in missing if each not in tail]
    estimates = {row.dispatch_id for row in rows if row.is_estimated}
    gaps = [each for each in lost if signed(each.id) not in estimates]
    audit = Audit(
        engine_records=len(records),
        rows=len(rows),
        differing=sum(not _is_same(row, written.get(key)) for key, row in reported.items()),
        gaps=len(gaps),
        only_estimated=len(lost) - len(gaps),
        repeated=len(records) - len({each.id for each in records}),
        unreported=len(tail),
        estimated=sum(row.is_estimated for row in rows),
        unknown=sum(signed(each.id) not in ids for each in tail),
    )
    audit.examples += [
        f"{'missing' if each in gaps else 'estimated'}: {each.origin.request_id}, attempt"
        f" {each.origin.attempt}, aborted {each.is_aborted}, {each.completion_tokens} tokens,"
        f" {deaths_s.get(each.epoch, math.inf) - each.ended_s:.2f} s before its engine was killed"
        for each in lost
    ]
    _compare_charges(audit, rows, answered)
    return audit


def _is_same(row: Row, record: UsageRecord | None) -> bool:
    if record is None or row.dispatch_id != signed(record.id):
        return False
    return row.tokens == (record.prompt_tokens, record.cached_tokens, record.completion_tokens)


def _compare_charges(audit: Audit, rows: Iterable[Row], answered: Mapping[str, int]) -> None:
    charged: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not row.is_wasted:
            charged[row.request_id].append(row)
    begun = {
        id_: sum(not row.is_continuation for row in attempts) for id_, attempts in charged.items()
    }
    twice = [id_ for id_, count in begun.items() if count > 1]
    audit.charged_twice = len(twice)
    audit.examples += [f"twice: {id_}: {charged[id_]}" for id_ in twice]
    for id_, tokens in answered.items():
        attempts = charged.get(id_, [])
        if not attempts:
            audit.not_charged += 1
        elif begun[id_] == 1 and sum(r.charged_completion_tokens for r in attempts) != tokens:
            if any(row.is_estimated for row in attempts):
                audit.other_tokens_estimated += 1
            else:
                audit.other_tokens += 1
            audit.examples.append(f"{id_}: {tokens} tokens, charged {attempts}")


def most_in_a_minute(records: Iterable[UsageRecord], times_s: TimesS) -> int:
    """Most requests of the limited project that were sent within 60 s, of those that ran.

    An engine that hangs reads requests only later, so its own times are of no use.
    """
    ran = {each.origin.request_id for each in records if each.origin.project == LIMITED}
    times = sorted(times_s[id_][0] for id_ in ran)
    most = begin = 0
    for end, time_s in enumerate(times):
        while time_s - times[begin] >= MINUTE_S:
            begin += 1
        most = max(most, end + 1 - begin)
    return most


def most_at_once(records: Iterable[UsageRecord], times_s: TimesS) -> int:
    """Most requests of the limited project that ran at the same time, at all engines.

    One that has been sent to another engine may still run at the first one: it counts once, and
    until its client has the answer.
    """
    changes: list[tuple[float, int, str]] = []
    for each in records:
        id_ = each.origin.request_id
        if each.origin.project == LIMITED and each.arrived_s < times_s[id_][1]:
            changes += (each.arrived_s, 1, id_), (min(each.ended_s, times_s[id_][1]), -1, id_)
    running = Counter[str]()
    most = 0
    for _, step, id_ in sorted(changes):
        running[id_] += step
        if not running[id_]:
            del running[id_]
        most = max(most, len(running))
    return most
