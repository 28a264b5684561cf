"""The demo model of `configs/dev.yaml` under another name, with one engine or two.

Its entry is the same for all tests, so that what differs, how many engines run, starts or ends
no more engines than it must.
"""

from tests.gateway_process import Document, GatewayProcess, model_application, wait_for

TWINS = "twins"
START_TIMEOUT_S = 300


def twins_application(dev_config: Document, replicas: int | None = None) -> Document:
    """The model's application: scaled by its load, or with so many engines."""
    (demo,) = [app for app in dev_config["applications"] if app["name"] == "demo"]
    fields = {
        "name": TWINS,
        "cpus_per_worker": 0.25,
        "autoscaling": {"min": 1, "max": 2, "scale_down_delay_s": 5},
        "queue": {"max_wait_s": 120},
    }
    application = model_application(**{**demo["args"], **fields})
    if replicas is not None:
        scaling = {"min_replicas": replicas, "max_replicas": replicas}
        application["deployments"] = [{"name": "Engine", "autoscaling_config": scaling}]
    return application


def with_twins(dev_config: Document, replicas: int | None = None) -> Document:
    """The development config and the twins."""
    applications = [*dev_config["applications"], twins_application(dev_config, replicas)]
    return {**dev_config, "applications": applications}


def deploy_twins(gateway: GatewayProcess, dev_config: Document, replicas: int | None) -> None:
    """Have so many engines of the twins; None: one, and more with their load."""
    gateway.deploy(with_twins(dev_config, replicas))
    wanted = replicas or 1
    wait_for(
        lambda: (
            is_deployed(gateway)
            and running(gateway) == wanted == len(gateway.replica_processes(TWINS))
        ),
        START_TIMEOUT_S,
    )


def is_deployed(gateway: GatewayProcess) -> bool:
    """Whether Serve is done with the last deploy; another one just then may be lost on it."""
    status: str = gateway.status()["applications"][TWINS]["status"]
    return status == "RUNNING"


def running(gateway: GatewayProcess) -> int:
    """How many engines the twins have, as the gateway sees it."""
    _, listing = gateway.request("GET", "/v1/models")
    return sum(card["replicas"] for card in listing["data"] if card["id"] == TWINS)
