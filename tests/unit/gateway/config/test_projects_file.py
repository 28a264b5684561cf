"""Projects files: what they may say, and how mistakes are reported."""

import datetime as dt
import hashlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.loader import load_config
from gateway.config.projects import Projects, parse_time
from gateway.config.projects_file import projects_path, read_projects
from gateway.errors.startup import ConfigError
from gateway.identity.project import RateLimit, SpendLimit
from gateway.identity.project_file import directory_of
from tests.unit.projects import KEY, OTHER_KEY, hash_of, project, write_projects

FULL = f"""\
projects:
  - name: search
    id: proj_search
    weight: 4
    cache_scope: group:web
    models: [m, a]
    routes: [/v1/chat/completions]
    tiers: [default, priority]
    max_body_mb: 8
    keys:
      - hash: {hash_of(KEY)}
        name: ci
        models: [m]
        expires: 2027-01-31
      - {{hash: "{hash_of(OTHER_KEY)}", id: key_two, expires: 2027-01-31T12:00:00+02:00}}
    rate_limits:
      - {{model: m, key: ci, requests_per_minute: 60, tokens_per_minute: 1000}}
      - {{key: key_two, concurrent_requests: 2, batch_tokens_per_day: 5}}
    spend_limits:
      - {{amount: 12.345678901, interval: day, is_hard: false}}
admin_keys:
  - {{hash: "{hash_of("root")}", name: ops}}
"""


def test_a_file_says_everything_about_a_project(tmp_path: Path) -> None:
    """All of it reaches the directory; ids are made where none are given."""
    path = tmp_path / "projects.yaml"
    path.write_text(FULL)
    directory = directory_of(read_projects([path]))
    (found,), (one, two), (admin,) = directory.projects, directory.keys, directory.admin_keys
    assert (found.id, found.name, found.weight) == ("proj_search", "search", 4)
    assert (found.cache_scope, found.max_body_mb) == ("group:web", 8)
    assert (found.models, found.routes) == (("m", "a"), ("/v1/chat/completions",))
    assert found.tiers == ("default", "priority")
    assert found.rate_limits == (
        RateLimit(model="m", key=one.id, requests_per_minute=60, tokens_per_minute=1000),
        RateLimit(key="key_two", concurrent_requests=2, batch_tokens_per_day=5),
    )
    assert found.spend_limits == (
        SpendLimit(amount_nano=12_345_678_901, interval="day", is_hard=False),
    )
    assert (one.name, one.models, one.project) == ("ci", ("m",), found.id)
    assert one.id.startswith("key_")
    assert one.hash == hashlib.sha256(KEY.encode()).digest()
    assert one.expires_s == dt.datetime(2027, 1, 31, tzinfo=dt.UTC).timestamp()
    assert two.expires_s == dt.datetime(2027, 1, 31, 10, tzinfo=dt.UTC).timestamp()
    assert (admin.name, admin.id.startswith("key_")) == ("ops", True)


def test_ids_do_not_change_with_the_place_in_the_file(tmp_path: Path) -> None:
    """They are made from a project's name and a key's hash."""
    one, two = project("one", KEY), project("two", OTHER_KEY)
    path = tmp_path / "p.yaml"
    write_projects(path, one, two)
    first = directory_of(read_projects([path]))
    write_projects(path, two, one)
    second = directory_of(read_projects([path]))
    assert {(each.id, each.name) for each in first.projects} == {
        (each.id, each.name) for each in second.projects
    }
    assert {(each.id, each.hash) for each in first.keys} == {
        (each.id, each.hash) for each in second.keys
    }


MISTAKES = [
    ("name: search", "nome: search", "2: projects[0].nome: unknown field, did you mean `name`?"),
    ("weight: 4", "weight: 0", "4: projects[0].weight: should be greater than 0, found 0"),
    ("weight: 4", 'weight: "4"', '4: projects[0].weight: should be a number, found "4"'),
    ("group:web", "groups:web", "5: projects[0].cache_scope: must be `project`, `key`, `group:N"),
    ("[m, a]", "[m, a b]", "6: projects[0].models[1]: must be non-empty, without spaces"),
    ("[/v1/chat/completions]", "[v1]", "7: projects[0].routes[0]: is no route for inference"),
    ("priority]", "fast]", "8: projects[0].tiers[1]: should be 'flex', 'default' or 'priority'"),
    ("id: key_two", 'id: "key:two"', "projects[0].keys[1].id: must have no `:`"),
    (
        "chat/completions]",
        "chat/completion]",
        (
            "7: projects[0].routes[0]: is no route for inference, did you mean"
            " `/v1/chat/completions`?"
        ),
    ),
    ("tiers: [default, priority]", "tiers: [flex, flex]", "8: projects[0].tiers: must have none"),
    ("tiers: [default, priority]", "tiers: []", "8: projects[0].tiers: must not be empty"),
    (hash_of(KEY), KEY, "11: projects[0].keys[0].hash: must be the key's hash, `sha256:` and 64"),
    (hash_of(KEY), "12345678", "11: projects[0].keys[0].hash: must be the key's hash"),
    (hash_of(KEY), hash_of(""), "11: projects[0].keys[0].hash: is the hash of an empty key"),
    (hash_of(KEY), hash_of(KEY).upper(), "11: projects[0].keys[0].hash: must be the key's hash"),
    (hash_of(KEY), hash_of(OTHER_KEY), "15: projects[0].keys[1].hash: this hash appears twice"),
    ("2027-01-31\n", "soon\n", "14: projects[0].keys[0].expires: must be a date or a time such"),
    ("id: key_two", "id: 'a b'", "15: projects[0].keys[1].id: must be up to 128 letters, digits"),
    ("key: ci", "key: cd", "17: projects[0].rate_limits[0].key: the project has no such key"),
    ("requests_per_minute: 60", "rpm: 60", "17: projects[0].rate_limits[0].rpm: unknown field"),
    ("tokens_per_minute: 1000", "tokens_per_minute: -1", "17: projects[0].rate_limits[0].tokens_"),
    ("interval: day", "interval: week", "20: projects[0].spend_limits[0].interval: should be"),
    ("amount: 12.345678901", "amount: .inf", "20: projects[0].spend_limits[0].amount: should be"),
    ("    keys:\n", "    keyz:\n", "10: projects[0].keyz: unknown field, did you mean `keys`?"),
    ("projects:", "project:", "1: project: unknown field, did you mean `projects`?"),
    ("    id: proj_search\n", "    id: proj_search\n    id: x\n", "projects[0].id: appears twice"),
]


@pytest.mark.parametrize(("good", "wrong", "line"), MISTAKES)
def test_a_mistake_names_its_place(tmp_path: Path, good: str, wrong: str, line: str) -> None:
    """File, line, path and what is wrong, and never a key."""
    path = tmp_path / "projects.yaml"
    path.write_text(FULL.replace(good, wrong, 1))
    assert path.read_text() != FULL
    with pytest.raises(ConfigError) as caught:
        read_projects([path])
    assert any(
        each.startswith(f"{path}:") and line in each for each in str(caught.value).split("\n")
    )
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "projects: x", "- a", "{", "\x00", "projects: [x]", "a"])
def test_what_is_no_projects_file_is_refused(tmp_path: Path, text: str) -> None:
    """With its name, in one line for each mistake."""
    path = tmp_path / "projects.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        read_projects([path])


def test_an_empty_file_has_no_projects(tmp_path: Path) -> None:
    """As when the last one has been removed."""
    path = tmp_path / "projects.yaml"
    path.write_text("# nobody yet\n")
    assert directory_of(read_projects([path])).projects == ()


@pytest.mark.parametrize(
    ("changed", "word"), [({"name": "one"}, "name"), ({"id": "p"}, "id"), ({"keys": KEY}, "hash")]
)
def test_duplicates_in_several_files_are_found(
    tmp_path: Path, changed: dict[str, str], word: str
) -> None:
    """The later one is reported, in its own file."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    write_projects(first, project("one", KEY, id="p"))
    other = project(changed.get("name", "two"), changed.get("keys", OTHER_KEY))
    write_projects(second, {**other, "id": changed.get("id", "q")})
    with pytest.raises(ConfigError, match=f"{second}:1: .*this {word} appears twice"):
        read_projects([first, second])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["projects", "name", "keys", "hash", "models", "admin_keys", "id"])
                | st.text(max_size=4),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_content_is_accepted_or_rejected(content: object) -> None:
    """Whatever a file says, the answer is projects or an error with places."""
    text = yaml.safe_dump(content, allow_unicode=False)
    path = Path("/dev/shm") / "any-projects.yaml"  # noqa: S108 - the same file for all examples
    path.write_text(text)
    message = ""
    try:
        directory_of(read_projects([path]))
    except ConfigError as error:
        message = str(error)
    finally:
        path.unlink()
    assert not message or message.startswith(str(path))


@given(st.datetimes(timezones=st.none() | st.just(dt.UTC)))
def test_times_without_an_offset_are_utc(time: dt.datetime) -> None:
    """With or without it, the same time is meant."""
    assert parse_time(time.isoformat()) == parse_time(time.replace(tzinfo=None).isoformat())


def test_a_relative_path_may_start_from_several_folders(tmp_path: Path) -> None:
    """The first one that has the file; an absolute one is taken as it is."""
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    (there / "p.yaml").write_text("")
    assert projects_path("p.yaml", [here, there]) == there / "p.yaml"
    assert projects_path("q.yaml", [here, there]) == here / "q.yaml"
    assert projects_path(str(there / "p.yaml"), [here]) == there / "p.yaml"


DEPLOYMENT = """\
applications:
  - name: gateway
    import_path: deployments.app:gateway
    deployments:
      - name: Router
        user_config:
          auth: AUTH
  - name: m
    import_path: deployments.app:model
    route_prefix: null
    args: {name: m, engine: sim}
"""


def loaded(tmp_path: Path, auth: str, host: str = "") -> tuple[str, ...]:
    """Warnings about a deployment with this `auth`."""
    text = DEPLOYMENT.replace("AUTH", auth)
    path = tmp_path / "serve.yaml"
    path.write_text(f"{text}http_options: {{host: {host}}}\n" if host else text)
    return load_config(path).warnings


def test_a_check_reads_projects_files_too(tmp_path: Path) -> None:
    """Mistakes are errors; models that are not deployed, and files elsewhere, are warnings."""
    path = tmp_path / "projects.yaml"
    write_projects(path, project("one", KEY, models=["m", "mm"]))
    (warning,) = loaded(tmp_path, f"{{projects: [{path}]}}")
    assert f'{path}:1: projects[0].models[1]: no model, adapter, alias or split is named "mm"' in (
        warning
    )
    (warning,) = loaded(tmp_path, "{projects: [/nowhere/projects.yaml]}")
    assert warning.startswith("/nowhere/projects.yaml: there is no such file here")
    path.write_text("projects: [{}]")
    with pytest.raises(ConfigError, match=f"{path}:1: projects\\[0\\].name: is missing"):
        loaded(tmp_path, f"{{projects: [{path}]}}")


@pytest.mark.parametrize(
    ("auth", "host", "message"),
    [
        ("null", "", "user_config.auth: is missing, and the gateway can be reached from other"),
        ("null", "0.0.0.0", "user_config.auth: is missing"),  # noqa: S104
        ("null", "gateway.example.com", "user_config.auth: is missing"),
        ("{}", "127.0.0.1", "user_config.auth: has no projects, so nobody could be let in"),
        ("{is_required: false, projects: [x]}", "", "auth.projects: has no effect where"),
        ("yes please", "", "user_config.auth: should be a mapping, found <hidden>"),
        ("{project: [x]}", "", "auth.project: unknown field, did you mean `projects`?"),
        ("{projects: [x], jwt: [{}]}", "", "auth.jwt[0].issuer: is missing"),
        ("{projects: [x], jwt: [{nam: x}]}", "", "auth.jwt[0].nam: unknown field, did you mean"),
    ],
)
def test_who_may_enter_has_to_be_said(tmp_path: Path, auth: str, host: str, message: str) -> None:
    """Unless only this machine can reach the gateway."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, auth, host)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("auth", "host"),
    [("none", ""), ("null", "127.0.0.1"), ("null", "localhost"), ("none", "'::1'")],
)
def test_a_gateway_may_be_open(tmp_path: Path, auth: str, host: str) -> None:
    """If that is said, or nobody else can reach it."""
    assert loaded(tmp_path, auth, host) == ()


def test_the_hash_of_a_key_is_nowhere_in_a_projects_repr() -> None:
    """Errors and logs may show it, but it opens nothing."""
    entry = Projects.model_validate({"projects": [project("one", KEY)]})
    assert KEY not in repr(entry)
