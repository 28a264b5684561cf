"""The probe of a node: real sockets, files and variables of this machine."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.doctor import probe
from gateway.doctor.facts import ConnectionTry, NodeFacts, Resolution, SourceFacts
from gateway.doctor.probe import NodeProbe

HERE = "127.0.0.1"


@pytest.fixture
def there() -> Iterator[NodeProbe]:
    """A probe that others connect to."""
    there = NodeProbe("there", HERE)
    yield there
    there.close()


def connected(*targets: tuple[str, str, int, str, bool]) -> list[str]:
    """Results of a probe that connects to these."""
    found = NodeProbe("here", HERE).connect(targets)
    return [each.result for each in msgspec.convert(found, list[ConnectionTry])]


def test_facts_are_those_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """They convert, and have only the variables that were asked for."""
    monkeypatch.setenv("WANTED", "1")
    monkeypatch.setenv("UNWANTED", "2")
    facts = msgspec.convert(NodeProbe("n", HERE).facts(["WANTED", "UNSET"]), NodeFacts)

    assert (facts.id, facts.address, facts.environment) == ("n", HERE, {"WANTED": "1"})
    assert facts.packages["ray-llm-gateway"]
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert "lo" in [each.name for each in facts.interfaces]
    assert facts.shm_total_bytes > 0
    assert {disk.purpose for disk in facts.disks} == {"Ray's session", "models from the hub"}


def test_an_open_port_is_the_right_nodes(there: NodeProbe) -> None:
    """Whoever answers there says who it is."""
    ((purpose, port),) = there.listen([("routers", 0, 0)])

    assert purpose == "routers"
    assert connected(("there", HERE, port, purpose, True)) == ["open"]
    assert connected(("other", HERE, port, purpose, True)) == ["wrong machine"]
    assert connected(("other", HERE, port, purpose, False)) == ["open"]


def test_a_closed_port_is_seen(there: NodeProbe) -> None:
    """One that nothing listens on is refused."""
    port = there.free_port()

    assert connected(("there", HERE, port, "x", False)) == ["refused"]


def test_a_port_that_drops_packets_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a firewall does: a full queue of connections answers nothing, either."""
    monkeypatch.setattr(probe, "CONNECT_TIMEOUT_S", 0.2)
    with socket.socket() as full:
        full.bind((HERE, 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex((HERE, port))
        assert connected(("there", HERE, port, "x", False)) == ["timeout"]
        for each in waiting:
            each.close()


def test_a_busy_port_gives_way_to_the_next_of_its_range(there: NodeProbe) -> None:
    """A range that is busy altogether is left out."""
    with socket.socket() as busy:
        busy.bind((HERE, 0))
        port = busy.getsockname()[1]
        found = there.listen([("all busy", port, port), ("routers", port, port + 50)])

    assert [purpose for purpose, _ in found] == ["routers"]
    assert port < found[0][1] <= port + 50


def test_names_are_looked_up() -> None:
    """One that leads nowhere has no addresses."""
    found = NodeProbe("n", HERE).resolve({"b": "localhost", "c": "no-such-host.invalid"})
    first, second = msgspec.convert(found, list[Resolution])

    assert HERE in first.addresses
    assert second.addresses == ()


def test_weights_are_looked_for_as_engines_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In folders, and in the cache of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for folder in ("models/good", "models/empty", "hf/hub/models--org--kept/snapshots/1"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("models/good", "hf/hub/models--org--kept/snapshots/1"):
        (tmp_path / folder / "config.json").write_text("{}")
    wanted = [
        ("m", "source", "models/good", False),
        ("m", "source", str(tmp_path / "models/good"), True),
        ("m", "source", "models/empty", False),
        ("m", "source", "/nowhere/at/all", True),
        ("m", "source", "org/kept", False),
        ("m", "adapters.a", "org/unkept", False),
    ]
    found = msgspec.convert(NodeProbe("n", HERE).sources(wanted), list[SourceFacts])

    states = ["found", "found", "missing", "missing", "cached", "not cached"]
    assert [each.state for each in found] == states


def test_a_token_is_known_by_its_mark_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same token has the same mark, and cannot be read from it."""
    marks = []
    for token in ("secret-token", "secret-token", "another"):
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        marks.append(NodeProbe("n", HERE).facts(())["token_mark"])

    assert marks[0] == marks[1] != marks[2]
    assert "secret" not in json.dumps(marks)


def test_a_probe_needs_nothing_of_this_package() -> None:
    """It is sent to nodes on which nothing is installed."""
    code = (
        "import sys, runpy\n"
        f"module = runpy.run_path({probe.__file__!r})\n"
        "module['NodeProbe']('n', '127.0.0.1').facts(())\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('gateway', 'ray')])\n"
    )
    environ = {**os.environ, "PYTHONPATH": ""}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )

    assert ended.stdout.strip() == "[]"
