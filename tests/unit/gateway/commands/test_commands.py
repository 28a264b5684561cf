"""The commands for administrators, and OpenAI's client, with a gateway over HTTP."""

import json
import time

import openai
import pytest
from typer.testing import CliRunner, Result

from gateway.commands.api_client import Json
from gateway.environment import ADMIN_KEY as KEY_VARIABLE
from gateway.environment import GATEWAY_URL
from tests.unit.administered import ADMIN_KEY
from tests.unit.command_line import app
from tests.unit.conftest import PATIENCE_S


class Shell:
    """Runs commands against one gateway, with its admin key in the environment."""

    def __init__(self, url: str, key: str | None = ADMIN_KEY) -> None:
        self._env = {GATEWAY_URL: url, KEY_VARIABLE: key}

    def run(self, *arguments: str) -> Result:
        """Run a command that may fail."""
        return CliRunner(env=self._env).invoke(app, arguments)

    def output(self, *arguments: str) -> str:
        """Output of a command that succeeds."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Json:
        """The same of one that prints JSON."""
        found: Json = json.loads(self.output(*arguments, "--json"))
        return found


@pytest.fixture
def shell(gateway_url: str) -> Shell:
    """A shell of an administrator."""
    return Shell(gateway_url)


def can_ask(url: str, key: str) -> bool:
    """Whether a client with this key gets an answer."""
    client = openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
    try:
        client.models.list()
    except openai.AuthenticationError:
        return False
    return True


def is_admin(client: openai.OpenAI) -> bool:
    """Whether a client may administer the gateway."""
    try:
        client.admin.organization.projects.list()
    except openai.AuthenticationError:
        return False
    return True


def wait_until_refused(url: str, key: str) -> None:
    """Wait until the gateway refuses a key."""
    until_s = time.monotonic() + PATIENCE_S
    while can_ask(url, key):
        assert time.monotonic() < until_s
        time.sleep(0.02)  # noqa: TID251 - a test's own thread


def wait_until_accepted(url: str, key: str) -> None:
    """Wait until the gateway accepts a key."""
    until_s = time.monotonic() + PATIENCE_S
    while not can_ask(url, key):
        assert time.monotonic() < until_s
        time.sleep(0.02)  # noqa: TID251 - a test's own thread


def test_one_command_makes_a_project_and_its_first_key(shell: Shell, gateway_url: str) -> None:
    """The key is on the last line, and works; without one the gateway is closed."""
    output = shell.output("projects", "create", "search", "--with-key")

    key = output.splitlines()[-1]
    assert not can_ask(gateway_url, "sk-nobody")
    wait_until_accepted(gateway_url, key)
    assert "search" in shell.output("projects", "list")


def test_a_rotated_key_gives_way_to_the_new_one(shell: Shell, gateway_url: str) -> None:
    """Both are valid for a while; a deleted key is refused, and so are those of the archived."""
    shell.output("projects", "create", "search")
    old = shell.json("keys", "create", "--project", "search", "--name", "web")
    wait_until_accepted(gateway_url, old["value"])

    new = shell.json("keys", "rotate", old["id"], "--project", "search", "--grace", "1h")

    wait_until_accepted(gateway_url, new["value"])
    assert can_ask(gateway_url, old["value"])
    listed = shell.output("keys", "list", "--project", "search")
    assert old["value"] not in listed
    assert listed.count("web") == 2
    shell.output("keys", "delete", old["id"], "--project", "search")
    wait_until_refused(gateway_url, old["value"])
    assert can_ask(gateway_url, new["value"])
    shell.output("projects", "archive", "search")
    wait_until_refused(gateway_url, new["value"])


def test_a_key_that_expires_sooner_is_not_extended_by_its_rotation(shell: Shell) -> None:
    """One that has expired gets a successor, too."""
    shell.output("projects", "create", "search")
    new = ("keys", "create", "--project", "search", "--owner")
    soon = shell.json(*new, "a", "--expires-in", "10m")
    past = shell.json(*new, "b", "--expires-in", "1s")
    until_s = time.monotonic() + PATIENCE_S
    while time.time() <= past["expires_at"]:
        assert time.monotonic() < until_s
        time.sleep(0.1)  # noqa: TID251 - a test's own thread

    for old in (soon, past):
        assert shell.json("keys", "rotate", old["id"], "--project", "search")["value"]

    keys = json.loads(shell.output("keys", "list", "--project", "search", "--json"))
    listed = {each["id"]: each for each in keys}
    for old in (soon, past):
        assert listed[old["id"]]["expires_at"] == old["expires_at"]


def test_limits_are_set_and_shown(shell: Shell) -> None:
    """For all models, and for one whose name has a slash."""
    shell.output("projects", "create", "search")
    shell.output("projects", "limits", "search", "--requests-per-minute", "60")
    output = shell.output(
        *("projects", "limits", "search", "--model", "org/large", "--tokens-per-minute", "1000")
    )
    assert "60" in output
    assert "org/large" in output
    assert "1,000" in output
    output = shell.output("projects", "limits", "search", "--model", "org/large", "--remove")
    assert "org/large" not in output


def test_money_is_limited_and_shown(shell: Shell) -> None:
    """In units of the currency."""
    shell.output("projects", "create", "search")
    output = shell.output("projects", "spend", "search", "--limit", "12.5", "--per", "day")
    assert output == "0.00 of 12.50 spent in this day\n"
    shell.output("projects", "spend", "search", "--remove", "--per", "day")
    assert shell.run("projects", "spend", "search", "--per", "day").exit_code == 1


def test_settings_are_changed(shell: Shell) -> None:
    """What is not named stays."""
    made = shell.json("projects", "create", "search", "--model", "a", "--weight", "2")
    changed = shell.json("projects", "update", made["id"], "--cache-scope", "key", "--all-models")
    assert (changed["weight"], changed["cache_scope"], changed["models"]) == (2.0, "key", None)


def test_usage_and_costs_are_tables(shell: Shell) -> None:
    """Also while there is nothing in them."""
    assert "input tokens" in shell.output("usage", "--by", "model", "--by", "key")
    costs = shell.output("costs", "--days", "3")
    assert all(each in costs for each in ("cost", "devices idle", "wasted", "currency"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("projects", "archive", "nothing"), "no project is named 'nothing'"),
        (("projects", "create", "x", "--weight", "0"), "Invalid value for `weight`"),
        (("projects", "archive", "proj_unknown"), "There is no project `proj_unknown` here."),
        (("keys", "list", "--project", "../../gateway"), "no project is named"),
    ],
)
def test_refusals_are_told(shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    """On standard error, with exit status 1, without a traceback."""
    result = shell.run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_the_key_is_missing_wrong_or_a_projects(shell: Shell, gateway_url: str) -> None:
    """Nobody without an admin key administers anything; the message says what to set."""
    key = shell.output("projects", "create", "search", "--with-key").splitlines()[-1]
    wait_until_accepted(gateway_url, key)
    for other in (None, "wrong", key):
        result = Shell(gateway_url, other).run("projects", "list")
        assert result.exit_code == 1
        assert "need an admin key" in result.stderr
        assert (KEY_VARIABLE in result.stderr) == (other is None)
        assert key not in result.stderr


def test_a_gateway_that_is_not_there_is_named() -> None:
    """With its address."""
    result = Shell("http://127.0.0.1:9").run("projects", "list")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9/v1/organization/projects: cannot be reached" in result.stderr


def test_openais_client_administers_the_gateway(gateway_url: str) -> None:
    """By its own names, over HTTP; new admin keys work, and stop when they are deleted."""
    client = openai.OpenAI(admin_api_key=ADMIN_KEY, base_url=f"{gateway_url}/v1", max_retries=0)
    organization = client.admin.organization
    admin = organization.admin_api_keys.create(name="ops", expires_in_seconds=3600)
    other = openai.OpenAI(admin_api_key=admin.value, base_url=f"{gateway_url}/v1", max_retries=0)

    until_s = time.monotonic() + PATIENCE_S
    while not is_admin(other):
        assert time.monotonic() < until_s
    project = other.admin.organization.projects.create(name="search")
    account = organization.projects.service_accounts.create(project.id, name="bot")
    assert account.api_key is not None
    wait_until_accepted(gateway_url, account.api_key.value)
    listed = organization.projects.rate_limits.list_rate_limits(project.id).data
    actors = organization.audit_logs.list(actor_ids=[admin.id]).data
    assert [each.model for each in listed] == ["*"]
    assert [each.type for each in actors] == ["project.created"]

    organization.admin_api_keys.delete(admin.id)
    until_s = time.monotonic() + PATIENCE_S
    while is_admin(other):
        assert time.monotonic() < until_s
