"""Prometheus and Grafana for a gateway on this machine: their programs and their configuration."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gateway.config.packaged import CONFIGS

HOST = "127.0.0.1"
SCRAPE_INTERVAL = "10s"
"""Ray's processes report to their agent as often."""
USUAL_DIRECTORIES = ("/usr/sbin", "/usr/local/bin", "/usr/share/grafana/bin", "/opt/homebrew/bin")
DASHBOARD = CONFIGS / "grafana" / "gateway.json"
DATASOURCE = "prometheus"


@dataclass(frozen=True, slots=True)
class MonitoringProgram:
    """Prometheus or Grafana, ready to be started."""

    name: str
    command: list[str]
    port: int
    health: str
    """Path that answers with 200 once it is up."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Address for a browser."""
        return f"http://{HOST}:{self.port}"


def prometheus(directory: Path, port: int, path: str) -> MonitoringProgram | None:
    """Prometheus with its files below `directory`; None if it is not installed.

    It scrapes the agents that `write_agents` lists.
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
    return MonitoringProgram("Prometheus", command, port, "/-/ready")


def write_agents(directory: Path, agents: Iterable[str]) -> None:
    """List the agents for the Prometheus of `directory`, which may be running."""
    file = _agents_file(directory)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps([{"targets": sorted(set(agents))}]))
    fresh.replace(file)


def grafana(directory: Path, port: int, path: str, prometheus_url: str) -> MonitoringProgram | None:
    """Grafana with the gateway's dashboard and its files below `directory`; None if not installed.

    Everybody who reaches its port may view and edit: it listens on the loopback interface only.
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
        # Grafana must not call home, or wait for hosts that do not answer.
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    }
    command = [*server, "--homepath", str(home)]
    return MonitoringProgram("Grafana", command, port, "/api/health", environment)


def _find(path: str, *names: str) -> Path | None:
    places = os.pathsep.join(filter(None, [path, *USUAL_DIRECTORIES]))
    found = next(filter(None, (shutil.which(name, path=places) for name in names)), None)
    return None if found is None else Path(found).resolve()


def _home_of(program: Path) -> Path | None:
    """Directory of Grafana's own files: from its archive, a Debian package, or Homebrew."""
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
