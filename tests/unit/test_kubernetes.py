"""configs/kubernetes: manifests that agree with the code, the image, prod.yaml and the docs."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cluster.plan import Plan
from gateway.config.loader import load_config
from gateway.config.serve_fields import REFUSED
from gateway.environment import recommended
from gateway.serving.access import OPEN_PATHS

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
KUBERNETES = CONFIGS / "kubernetes"
PRODUCTION = KUBERNETES / "overlays" / "production"
DEMO = KUBERNETES / "overlays" / "demo"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NEEDS_KUBECTL = pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
GPUS_OF_A_NODE = 8

Manifest = dict[str, Any]


def manifests(folder: Path) -> Iterator[Manifest]:
    """All objects in the files of a folder, without kustomize's own."""
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if "kind" in document and document["kind"] != "Kustomization":
                yield document


def only(folder: Path, kind: str, name: str | None = None) -> Manifest:
    """The one object of its kind, or with that name."""
    (found,) = [
        each
        for each in manifests(folder)
        if each["kind"] == kind and name in {None, each["metadata"]["name"]}
    ]
    return found


SERVICE = only(KUBERNETES / "base", "RayService")
CLUSTER: Manifest = SERVICE["spec"]["rayClusterConfig"]
HEAD: Manifest = CLUSTER["headGroupSpec"]
GROUPS: dict[str, Manifest] = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
SERVE: Manifest = yaml.safe_load((KUBERNETES / "base" / "serve.yaml").read_text())
LABELS: Manifest = HEAD["template"]["metadata"]["labels"]


def container(group: Manifest) -> Manifest:
    """Ray's container in the pods of a group."""
    found: Manifest = group["template"]["spec"]["containers"][0]
    return found


def nodes(group: Manifest) -> Manifest:
    """What a pod of the group may use."""
    limits: Manifest = container(group)["resources"]["limits"]
    return limits


CONTAINERS = [container(group) for group in (HEAD, *GROUPS.values())]


def argument(dockerfile: str, name: str) -> str:
    """The default of a build argument."""
    (value,) = re.findall(rf"(?m)^ARG {name}=(.*)$", (ROOT / dockerfile).read_text())
    return str(value).strip('"')


def test_it_deploys_the_production_config() -> None:
    """The base's file is configs/prod.yaml, to the letter: copy it after each change."""
    copy = (KUBERNETES / "base" / "serve.yaml").read_text()
    assert copy == (CONFIGS / "prod.yaml").read_text()


def test_the_demo_deploys_the_models_of_the_development_config() -> None:
    """The same models, behind keys, open to other machines."""
    plan = Plan.of(load_config(DEMO / "serve.yaml"))
    assert plan.max_gpus == 0
    demo = yaml.safe_load((DEMO / "serve.yaml").read_text())
    development = Plan.of(load_config(CONFIGS / "dev.yaml"))
    assert [(model.model, model.source) for model in plan.models] == [
        (model.model, model.source) for model in development.models
    ]
    assert demo["http_options"] == {"host": "0.0.0.0", "port": 8000}  # noqa: S104


@pytest.mark.parametrize(
    "file", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=lambda file: file.parent.name
)
def test_kustomize_finds_every_file(file: Path) -> None:
    """Every file of a folder is used, and every file that is named exists."""
    kustomization = yaml.safe_load(file.read_text())
    generated = kustomization.get("configMapGenerator", []) + kustomization.get(
        "secretGenerator", []
    )
    named = [
        *kustomization["resources"],
        *(each["path"] for each in kustomization.get("patches", [])),
        *(name for each in generated for name in each["files"]),
    ]
    assert all((file.parent / name).exists() for name in named)
    beside = {path.name for path in file.parent.glob("*.yaml")} - {file.name}
    assert beside == {name for name in named if not (file.parent / name).is_dir()}
    assert "namespace" not in kustomization  # that of whoever applies it


@pytest.mark.parametrize("folder", [KUBERNETES / "base", DEMO], ids=["base", "demo"])
def test_the_serve_config_comes_from_its_file(folder: Path) -> None:
    """Kustomize puts serve.yaml into the RayService, and applies no ConfigMap."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    (generated,) = kustomization["configMapGenerator"]
    (replacement,) = kustomization["replacements"]
    assert generated["files"] == ["serve.yaml"]
    assert replacement["source"]["name"] == generated["name"]
    assert replacement["source"]["fieldPath"] == "data.[serve.yaml]"
    assert replacement["targets"] == [
        {"select": {"kind": "RayService"}, "fieldPaths": ["spec.serveConfigV2"]}
    ]


def test_the_image_is_of_this_version() -> None:
    """The image has the package's version, and Ray that of the image and the requirements."""
    assert {each["image"] for each in CONTAINERS} == {f"ray-llm-gateway:{VERSION}"}
    (image,) = yaml.safe_load((DEMO / "kustomization.yaml").read_text())["images"]
    assert image == {"name": "ray-llm-gateway", "newTag": f"{VERSION}-cpu"}
    pinned = set(re.findall(r"(?m)^ray==(\S+)$", (ROOT / "requirements" / "gpu.txt").read_text()))
    assert {CLUSTER["rayVersion"]} == pinned == {argument("Dockerfile", "RAY_VERSION")}


def test_the_images_have_the_same_environment() -> None:
    """Pods set no variable that the image has, and both images have the same."""
    environments = [
        re.findall(r"(?ms)^ENV .*?[^\\]$", (ROOT / name).read_text())
        for name in ("Dockerfile", "Dockerfile.cpu")
    ]
    assert environments[0] == environments[1]
    assert len(environments[0]) == 1
    own = {variable["name"] for each in CONTAINERS for variable in each["env"]}
    assert not own & recommended("gateway-haproxy").keys()


def test_the_demo_image_has_the_torch_of_make_setup() -> None:
    """One version of torch for CPUs, wherever it is installed."""
    (pinned,) = re.findall(r"(?m)^TORCH_CPU +:= torch==(\S+)$", (ROOT / "Makefile").read_text())
    assert argument("Dockerfile.cpu", "TORCH_VERSION") == pinned


def test_workers_have_what_the_serve_config_refers_to() -> None:
    """Each `env:NAME` is a key of a Secret in the pod, and each path is on a volume."""
    text = (KUBERNETES / "base" / "serve.yaml").read_text()
    referred = set(re.findall(r"(?m)^[^#\n]*: env:(\w+)", text))
    settings = SERVE["applications"][0]["deployments"][0]["user_config"]
    paths = [
        *settings["auth"]["projects"],
        *(
            value
            for application in SERVE["applications"][1:]
            for value in application["args"]["env"].values()
            if value.startswith("/")
        ),
    ]
    assert referred
    assert len(paths) > 1
    for group in GROUPS.values():
        secret = {each["name"] for each in container(group)["env"] if "valueFrom" in each}
        assert secret == referred
        mounts = [Path(each["mountPath"]) for each in container(group)["volumeMounts"]]
        assert all(any(mount in Path(path).parents for mount in mounts) for path in paths)
        volumes = {each["name"] for each in group["template"]["spec"]["volumes"]}
        assert volumes == {each["name"] for each in container(group)["volumeMounts"]}


def test_no_secret_is_in_the_manifests() -> None:
    """They name Secrets; the docs say how to make each of them, with its keys."""
    text = "".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))
    assert "kind: Secret\n" not in text
    guide = (ROOT / "docs" / "production.md").read_text()
    named = set(re.findall(r"secretKeyRef: \{name: ([\w-]+), key: ([\w-]+)\}", text))
    files = set(re.findall(r"secretName: ([\w-]+)", text))
    tls = set(re.findall(r"kind: Secret, name: ([\w-]+)", text))
    assert named
    assert files
    assert tls
    commands = guide.replace("\\\n", " ")
    for name, key in named:
        assert re.search(rf"create secret generic {name} [^\n]*--from-\w+=?[ ]?{key}=", commands)
    for name in files:
        assert f"create secret generic {name} " in commands
    for name in tls:
        assert f"create secret tls {name} " in commands


def test_probes_ask_paths_that_exist() -> None:
    """Traffic comes once a model can answer; what restarts a pod is left to KubeRay."""
    serve = SERVE["http_options"]["port"]
    for each in CONTAINERS:
        assert {"name": "serve", "containerPort": serve} in each["ports"]
        assert "livenessProbe" not in each
    for group in GROUPS.values():
        probe = container(group)["readinessProbe"]["httpGet"]
        assert probe == {"path": "/readyz", "port": "serve"}
        assert probe["path"] in OPEN_PATHS


def reached_from_outside() -> dict[str, set[int]]:
    """Ports by who reaches them, of the table in docs/operations.md, without the cluster's own."""
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("| port | of | bound to | reached by |")[2]
    found: dict[str, set[int]] = {}
    for row in table.splitlines()[2:]:
        port, _, _, audience, _ = (cell.strip() for cell in row.strip("|").split(" | "))
        for each in {part.strip() for part in audience.split(",")} - {"nodes", "this node"}:
            found.setdefault(each, set()).add(int(port.split(maxsplit=1)[0]))
    return found


AUDIENCES = {
    "gateway.networking.k8s.io/gateway-name": "clients",
    "app.kubernetes.io/name=kuberay-operator": "operators",
    "app.kubernetes.io/name=prometheus": "Prometheus",
}
"""Who it is that a rule lets in, by a label of its pods."""


def test_the_network_policy_is_the_table_of_ports() -> None:
    """Open is what others than nodes reach, and all ports among nodes; the rest is closed."""
    spec = only(KUBERNETES / "base", "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["podSelector"]["matchLabels"] == LABELS
    opened: dict[str, set[int]] = {}
    among_nodes = []
    for rule in spec["ingress"]:
        (peer,) = rule["from"]
        ((key, value),) = peer["podSelector"]["matchLabels"].items()
        if {key: value} == LABELS:
            among_nodes.append(rule)
            continue
        audience = AUDIENCES.get(key) or AUDIENCES[f"{key}={value}"]
        opened[audience] = {port["port"] for port in rule["ports"]}
    assert opened == reached_from_outside()
    assert among_nodes == [{"from": [{"podSelector": {"matchLabels": LABELS}}]}]
    metrics = {"name": "metrics", "containerPort": next(iter(opened["Prometheus"]))}
    assert all(metrics in each["ports"] for each in CONTAINERS)


def test_every_pod_is_covered() -> None:
    """All pods have the label that the policy, the monitor and the budgets select by."""
    assert all(group["template"]["metadata"]["labels"] == LABELS for group in GROUPS.values())
    monitor = only(PRODUCTION, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"] == LABELS
    assert [each["port"] for each in monitor["podMetricsEndpoints"]] == ["metrics"]
    budgets = {
        each["spec"]["selector"]["matchLabels"].get("ray.io/group"): each["spec"]
        for each in manifests(PRODUCTION)
        if each["kind"] == "PodDisruptionBudget" and "redis" not in each["metadata"]["name"]
    }
    assert budgets.keys() == GROUPS.keys()
    for name, budget in budgets.items():
        # Kubernetes knows no scale of a RayCluster: only a whole number of available pods works.
        assert isinstance(budget["minAvailable"], int)
        assert budget["minAvailable"] < GROUPS[name]["minReplicas"]


def test_the_nodes_hold_the_plan() -> None:
    """At their least and at their most, nodes with GPUs have room for what the models take."""
    plan = Plan.of(load_config(CONFIGS / "prod.yaml"))
    (kind,) = {model.accelerator for model in plan.models}
    (gpus,) = [group for group in GROUPS.values() if "nvidia.com/gpu" in nodes(group)]
    routers = GROUPS["routers"]
    assert gpus["resources"] == {f"accelerator_type:{kind}": "1"}
    assert nodes(gpus)["nvidia.com/gpu"] == GPUS_OF_A_NODE
    for replicas, models, cpus in (
        ("minReplicas", plan.min_gpus, plan.min_cpus),
        ("maxReplicas", plan.max_gpus, plan.max_cpus),
    ):
        assert models <= GPUS_OF_A_NODE * gpus[replicas]
        of_routers = int(nodes(routers)["cpu"]) * routers[replicas]
        assert cpus <= int(nodes(gpus)["cpu"]) * gpus[replicas] + of_routers
    assert routers["minReplicas"] >= plan.routers.min_replicas
    for group in GROUPS.values():
        assert container(group)["resources"]["requests"] == nodes(group)


def test_an_upgrade_never_scales_behind_the_gateways_back() -> None:
    """At 100 % surge KubeRay asks Serve for all of its capacity, or for none of it."""
    options = SERVICE["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
    assert "target_capacity" in REFUSED["file"]
    assert not REFUSED["file"]["target_capacity"].applies_to(options["maxSurgePercent"])
    assert CLUSTER["enableInTreeAutoscaling"]  # KubeRay refuses the strategy without
    assert CLUSTER["autoscalerOptions"]["version"] == "v2"
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_clients_come_through_tls_and_both_gateways() -> None:
    """The outer Gateway has TLS and long timeouts, and leads to the one that KubeRay makes."""
    gateway, route = only(PRODUCTION, "Gateway"), only(PRODUCTION, "HTTPRoute")
    (listener,) = gateway["spec"]["listeners"]
    (rule,) = route["spec"]["rules"]
    kind = only(KUBERNETES / "istio", "GatewayClass")["metadata"]["name"]
    inner = f"{SERVICE['metadata']['name']}-gateway"
    assert (listener["protocol"], listener["port"]) == ("HTTPS", 443)
    assert [listener["hostname"]] == route["spec"]["hostnames"]
    options = SERVICE["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
    assert options["gatewayClassName"] == kind
    assert rule["backendRefs"] == [{"name": f"{inner}-{kind}", "port": 80}]
    hours = int(recommended("gateway-haproxy")["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"]) // 3600
    assert rule["timeouts"] == {"request": f"{hours}h", "backendRequest": f"{hours}h"}
    policy = only(KUBERNETES / "base", "NetworkPolicy")["spec"]["ingress"]
    peers = [peer["podSelector"]["matchLabels"] for rule in policy for peer in rule["from"]]
    assert {"gateway.networking.k8s.io/gateway-name": inner} in peers


def test_the_head_keeps_its_state_in_redis() -> None:
    """The address is that of the Service, and only the head and its clean-up reach it."""
    service, policy = (
        only(PRODUCTION, kind, "ray-llm-gateway-redis") for kind in ("Service", "NetworkPolicy")
    )
    (port,) = service["spec"]["ports"]
    address = f"{service['metadata']['name']}:{port['port']}"
    assert CLUSTER["gcsFaultToleranceOptions"]["redisAddress"] == address
    assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"] == LABELS
    assert HEAD["rayStartParams"]["num-cpus"] == "0"


def test_prometheus_gets_the_same_alerts() -> None:
    """The PrometheusRule has the groups of the file for Prometheus."""
    rules = only(PRODUCTION, "PrometheusRule")["spec"]
    assert rules == yaml.safe_load((CONFIGS / "prometheus" / "alerts.yaml").read_text())


def test_pods_run_without_privileges() -> None:
    """No root, no capabilities, and only the head speaks to Kubernetes, for its autoscaler."""
    for group in (HEAD, *GROUPS.values()):
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        assert container(group)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
    for group in GROUPS.values():
        assert group["template"]["spec"]["automountServiceAccountToken"] is False


def built(folder: Path) -> list[Manifest]:
    """What kustomize makes of a folder."""
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@NEEDS_KUBECTL
@pytest.mark.parametrize(
    ("overlay", "serve"), [(PRODUCTION, CONFIGS / "prod.yaml"), (DEMO, DEMO / "serve.yaml")]
)
def test_kustomize_builds_each_overlay(overlay: Path, serve: Path) -> None:
    """The RayService has the overlay's serve config; no ConfigMap and no Redis is left over."""
    objects = built(overlay)
    (service,) = [each for each in objects if each["kind"] == "RayService"]
    assert service["spec"]["serveConfigV2"] == serve.read_text()
    assert "serve-config" not in {each["metadata"]["name"] for each in objects}
    text = yaml.safe_dump(service)
    assert ("redis" in text) == (overlay == PRODUCTION)
    assert ("secretKeyRef" in text) == (overlay == PRODUCTION)
    tags = set(re.findall(r"image: (\S+)", text))
    assert tags == {f"ray-llm-gateway:{VERSION}{'' if overlay == PRODUCTION else '-cpu'}"}


@NEEDS_KUBECTL
def test_kustomize_builds_the_set_up_for_istio() -> None:
    """It needs no other object of the project."""
    assert {each["kind"] for each in built(KUBERNETES / "istio")} == {"GatewayClass", "ConfigMap"}
