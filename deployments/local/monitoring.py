"""Prometheus and Grafana for a gateway on this machine: where they are, and what they are told."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

HOST = "127.0.0.1"
SCRAPE_INTERVAL = "10s"
"""As often as Ray's processes report to their agent."""
USUAL_PLACES = ("/usr/sbin", "/usr/local/bin", "/usr/share/grafana/bin", "/opt/homebrew/bin")
DASHBOARD = Path(__file__).resolve().parents[2] / "configs" / "grafana" / "gateway.json"
DATASOURCE = "prometheus"


@dataclass(frozen=True, slots=True)
class Observer:
    """A program that shows how the gateway does, ready to be started."""

    name: str
    command: list[str]
    port: int
    health: str
    """The path that answers with 200 once it is up."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.port}"


def prometheus(directory: Path, port: int, path: str) -> Observer | None:
    """Prometheus with its files below `directory`; None if it is not on `path` or where it may be.

    It asks the agents that `write_agents` tells of.
    """
    program = _find(path, "prometheus")
    if program is None:
        return None
    config = _written(
        directory / "prometheus.yml",
        {
            "global": {"scrape_interval": SCRAPE_INTERVAL},
            "scrape_configs": [
                {
                    "job_name": "ray",
                    "file_sd_configs": [
                        {"files": [str(_agents_file(directory))], "refresh_interval": "5s"}
                    ],
                }
            ],
        },
    )
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    return Observer("Prometheus", command, port, "/-/ready")


def write_agents(directory: Path, agents: Iterable[str]) -> None:
    """Tell the Prometheus of `directory` whom to ask, also while it runs."""
    file = _agents_file(directory)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps([{"targets": sorted(set(agents))}]))
    fresh.replace(file)


def grafana(directory: Path, port: int, path: str, prometheus_url: str) -> Observer | None:
    """Grafana with the gateway's dashboard, its files below `directory`; None if there is none.

    Whoever reaches its port may look and edit: it listens on this machine only.
    """
    program = _find(path, "grafana", "grafana-server")
    home = None if program is None else _home_of(program)
    if program is None or home is None:
        return None
    provisioning = directory / "provisioning"
    source = {
        "name": "Prometheus",
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "isDefault": True,
        "jsonData": {"timeInterval": SCRAPE_INTERVAL},
    }
    provider = {"name": "gateway", "type": "file", "options": {"path": str(DASHBOARD.parent)}}
    _written(provisioning / "datasources" / "prometheus.yaml", _first("datasources", source))
    _written(provisioning / "dashboards" / "gateway.yaml", _first("providers", provider))
    server = [str(program), "server"] if program.name == "grafana" else [str(program)]
    environment = {
        "GF_PATHS_PROVISIONING": str(provisioning),
        "GF_PATHS_DATA": str(directory / "grafana"),
        "GF_PATHS_LOGS": str(directory / "grafana"),
        "GF_PATHS_PLUGINS": str(directory / "grafana" / "plugins"),
        "GF_SERVER_HTTP_ADDR": HOST,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Editor",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(DASHBOARD),
        # Nothing of this is to go out, or to wait for what does not answer.
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    }
    command = [*server, "--homepath", str(home)]
    return Observer("Grafana", command, port, "/api/health", environment)


def _find(path: str, *names: str) -> Path | None:
    places = os.pathsep.join(filter(None, [path, *USUAL_PLACES]))
    found = next(filter(None, (shutil.which(name, path=places) for name in names)), None)
    return None if found is None else Path(found).resolve()


def _home_of(program: Path) -> Path | None:
    """Where Grafana's own files are: from its archive, a Debian package, or Homebrew."""
    above = program.parent.parent
    places = (above, Path("/usr/share/grafana"), above / "share" / "grafana")
    return next((each for each in places if (each / "conf" / "defaults.ini").exists()), None)


def _agents_file(directory: Path) -> Path:
    return directory / "agents.json"


def _first(kind: str, item: Mapping[str, object]) -> dict[str, object]:
    return {"apiVersion": 1, kind: [dict(item)]}


def _written(file: Path, document: Mapping[str, object]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(dict(document), sort_keys=False))
    return file
