"""What a hub read is what its parts use: whatever they have in their own environment and file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from traitlets import Integer, Set
from traitlets.config import Config, Configurable
from traitlets.config.loader import DeferredConfigList, DeferredConfigString

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import execute
from jupyterhub_migspawner.config.resolved import Resolved, is_secret, resolve, settled
from jupyterhub_migspawner.config.settings import resolved_values
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.people import Person

READ_AT = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)

TIERS = "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"


class TheHub:
    """A file, and what a hub with this environment and command line reads in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "jupyterhub_config.py"
        self._patch = monkeypatch

    def reads(
        self, text: str, environ: Mapping[str, str] | None = None, **overrides: str
    ) -> Resolved:
        self.file.write_text("import os, sys\n" + text)
        with self._patch.context() as only_here:
            for name, value in (environ or {}).items():
                only_here.setenv(name, value)
            config = execute(self.file, self.file.read_bytes())
            given = Config()
            for name, value in overrides.items():
                given.MigBroker[name] = DeferredConfigString(value)
            config.merge(given)
            found = resolve(
                config,
                resolved_values(MigBroker(config=config)),
                file=self.file,
                text=self.file.read_bytes(),
                overrides=given,
                read_at=READ_AT,
            )
        return Resolved.from_bytes(found.to_bytes())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TheHub:
    monkeypatch.delenv("MIGSPAWNER_NVML", raising=False)
    return TheHub(tmp_path, monkeypatch)


def settings(found: Resolved) -> Any:
    return MigBroker(config=found.config()).settings()


def test_its_environment_counts(hub: TheHub) -> None:
    found = hub.reads(
        "c.MigBroker.tiers = [\n"
        "    {'name': 'small', 'profile': os.environ.get('JUPYTERHUB_GPU_PROFILE', '3g.20gb')}\n"
        "]\n"
        "c.ConfigurableHTTPProxy.auth_token = os.environ['CONFIGPROXY_AUTH_TOKEN']\n",
        {"JUPYTERHUB_GPU_PROFILE": "1g.5gb", "CONFIGPROXY_AUTH_TOKEN": "topsecret"},
    )
    assert settings(found).tiers[0].profile == "1g.5gb"
    assert found.variables == ("CONFIGPROXY_AUTH_TOKEN", "JUPYTERHUB_GPU_PROFILE")
    assert b"topsecret" not in found.to_bytes()


def test_only_variables_that_the_file_asks_for_are_named(hub: TheHub) -> None:
    found = hub.reads(
        TIERS + "os.environ['LAB_SET'] = os.getenv('LAB_ASKED', os.environ.get(\"PATH\", ''))\n"
        "os.environ['LAB_SET']\n"
        "x = 'LAB_SAME' in os.environ and os.environ['LAB_SAME'] == '1'\n"
    )
    assert found.variables == ("LAB_ASKED", "LAB_SAME", "LAB_SET")
    assert hub.reads(TIERS + "os.environ['LAB_SET'] = ''\n").variables == ()


def test_the_ways_to_its_database_count(hub: TheHub) -> None:
    found = hub.reads(
        TIERS + "os.environ['PGSSLMODE'] = 'require'\n",
        {"PGPASSFILE": "/srv/pgpass", "https_proxy": "http://p", "PGSSLMODE": "", "OTHER": "x"},
    )
    expected = {"PGPASSFILE": "/srv/pgpass", "https_proxy": "http://p", "PGSSLMODE": "require"}
    assert {k: v for k, v in found.ways.items() if k in (*expected, "OTHER")} == expected


def test_its_command_line_counts(hub: TheHub) -> None:
    found = hub.reads(TIERS, database_url="postgresql://u:pw@h/leases", offer_minutes="7")
    broker = MigBroker(config=found.config())
    assert broker.database_url == "postgresql://u:pw@h/leases"
    assert settings(found).offer_minutes == 7
    assert found.overrides == ("MigBroker.database_url", "MigBroker.offer_minutes")
    assert "pw" not in repr(found)


def test_its_folder_and_its_cards_count(hub: TheHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub.file.parent)
    found = hub.reads(TIERS, {"MIGSPAWNER_NVML": "sim:cards.json"})
    monkeypatch.chdir("/")
    broker = MigBroker(config=found.config())
    assert broker.resolved_database_url() == f"sqlite:///{hub.file.parent}/migspawner.sqlite"
    assert broker.resolved_nvml() == f"sim:{hub.file.parent}/cards.json"
    assert broker.key_file_of_hub().path == hub.file.parent / "migspawner_key"


FUNCTIONS = """
NAME, FIRST = os.environ["WHO"], sys.argv[0]
c.MigBroker.tiers = [
    {"name": "open", "profile": "1g.5gb"},
    {"name": "hers", "profile": "1g.5gb", "allow": lambda person: person.name == NAME},
]
c.MigBroker.default_tier = lambda person: FIRST
c.MigBroker.notices = {
    "users": ["json://h/{address}"], "addresses": lambda user: f"{user}@{NAME}"
}
"""


def test_functions_are_made_of_what_the_hub_read(
    hub: TheHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["open"])
    found = hub.reads(FUNCTIONS, {"WHO": "ada"})
    monkeypatch.setattr(sys, "argv", ["hers"])
    hub.file.write_text("this is no Python any more")
    before = dict(os.environ)
    got = settings(found)
    assert dict(os.environ) == before
    assert sys.argv == ["hers"]
    ada, bob = Person("ada"), Person("bob")
    assert [tier.allow is not None and tier.allow(ada) for tier in got.tiers] == [False, True]
    assert got.tiers[1].allow(bob) is False
    assert got.default_tier.of(bob, got.tiers) == "open"
    assert got.notices.address("bob") == "bob@ada"


def test_its_node_and_its_home_count(hub: TheHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "the-hubs-name")
    found = hub.reads(TIERS)
    monkeypatch.setattr("socket.gethostname", lambda: "another-name")
    broker = MigBroker(config=found.config())
    assert broker.node == "the-hubs-name"
    assert broker.hub_home == f"the-hubs-name:{Path.cwd().resolve()}"


def test_a_function_that_is_data_the_next_time_is_named(hub: TheHub) -> None:
    found = hub.reads(
        "c.MigBroker.tiers = [{'name': 'a', 'profile': 'none'}]\n"
        "c.MigBroker.default_tier = 'a' if 'LAB_SEEN' in os.environ else lambda person: 'a'\n"
    )
    assert found.source is not None
    found = replace(found, source=replace(found.source, environ={"LAB_SEEN": "1"}))
    with pytest.raises(ConfigError, match=r"MigBroker\.default_tier is a function"):
        found.config()


def test_functions_of_added_tiers_too(hub: TheHub) -> None:
    found = hub.reads(
        "c.MigBroker.tiers.append({'name': 'a', 'profile': 'none', 'allow': lambda p: False})\n"
        "c.MigBroker.tiers.extend(({'name': 'b', 'profile': 'none', 'allow': lambda p: True},))\n"
    )
    assert [tier.allow(Person("x")) for tier in settings(found).tiers] == [False, True]


def test_a_function_that_is_not_there_again_is_named(hub: TheHub) -> None:
    found = hub.reads(
        "import builtins\n"
        "first = not hasattr(builtins, 'seen_before')\n"
        "builtins.seen_before = True\n"
        "c.MigBroker.tiers = [{'name': 'a', 'profile': 'none'}]\n"
        "if first:\n"
        "    c.MigBroker.tiers[0]['allow'] = lambda person: True\n"
    )
    import builtins

    del builtins.seen_before  # type: ignore[attr-defined]
    assert found.config().MigBroker.tiers[0]["allow"] is not None
    with pytest.raises(ConfigError, match=r"MigBroker\.tiers\[0\]\['allow'\] is a function"):
        found.config()


def test_without_functions_nothing_is_executed_again(hub: TheHub) -> None:
    found = hub.reads(
        TIERS + "c.Spawner.pre_spawn_hook = lambda spawner: None\n"
        "c.JupyterHub.template_vars = {'name': 'lab', 'greet': lambda user: ''}\n"
    )
    assert found.source is None
    config = found.config(("MigBroker", "JupyterHub"))
    assert config.JupyterHub.template_vars == {"name": "lab"}
    assert "pre_spawn_hook" not in config.Spawner


def test_handlers_of_events_are_for_the_service_alone(hub: TheHub, tmp_path: Path) -> None:
    found = hub.reads(TIERS + "import logging\nc.EventLogger.handlers = [logging.NullHandler()]\n")
    (handler,) = found.config(("EventLogger",)).EventLogger.handlers
    assert isinstance(handler, logging.NullHandler)
    assert found.config().EventLogger.handlers == [None]


def test_values_keep_their_types(hub: TheHub) -> None:
    found = hub.reads(
        TIERS + "from pathlib import Path\n"
        "c.Authenticator.admin_users = {'ada'}\n"
        "c.Authenticator.allowed_users.add('bob')\n"
        "c.JupyterHub.template_paths = [Path('/srv')]\n"
        "c.JupyterHub.load_groups = {'pi': {'users': ('ada',)}}\n"
    )
    config = found.config()
    assert config.Authenticator.admin_users == {"ada"}
    assert config.Authenticator.allowed_users.get_value(set()) == {"bob"}
    assert config.JupyterHub.template_paths == [Path("/srv")]
    assert config.JupyterHub.load_groups == {"pi": {"users": ("ada",)}}


def test_passwords_of_other_sections_stay_with_the_hub(hub: TheHub) -> None:
    found = hub.reads(
        TIERS + "c.JupyterHub.services = [{'name': 'x', 'api_token': 'SECRET'}]\n"
        "c.JupyterHub.services += [{'name': 'y', 'api_token': b'SECRET'}]\n"
        "c.JupyterHub.db_url = 'postgresql://u:SECRET@h/hub'\n"
        "c.JupyterHub.cookie_secret = b'SECRET'\n"
        "c.JupyterHub.api_tokens = {'SECRET': 'ada'}\n"
        "c.CryptKeeper.keys = []\n"
        "c.GitHubOAuthenticator.client_secret = 'SECRET'\n"
        "c.LDAPAuthenticator.lookup_dn_search_password = 'SECRET'\n"
        "c.Lists.tokens.append('SECRET')\n"
        "c.Lists.url.append('https://u:SECRET@h')\n"
    )
    assert b"SECRET" not in found.to_bytes()
    config = found.config()
    assert config.JupyterHub.db_url.startswith("postgresql://u:")
    assert config.JupyterHub.services[0]["name"] == "x"
    # What looks at the permissions of files can still tell that there is a password.
    for name in ("services", "db_url", "cookie_secret"):
        assert is_secret(name, config.JupyterHub[name])


def test_whether_the_file_has_changed(hub: TheHub) -> None:
    found = hub.reads(TIERS)
    assert found.changed() == ()
    hub.file.write_text(TIERS)
    assert found.changed() == (str(hub.file),)
    hub.file.unlink()
    assert found.changed() == (str(hub.file),)


def test_files_that_it_loads_count_as_well(hub: TheHub) -> None:
    one, two, beside = (
        hub.file.with_name(name) for name in ("a.py", "b.py", hub.file.stem + ".json")
    )
    one.write_text("load_subconfig('b.py')")
    two.write_text(TIERS)
    beside.write_text("{}")
    found = hub.reads("load_subconfig(\"a.py\")\nload_subconfig('there-is-none.py')\n")
    assert found.changed() == ()
    for path in (one, two, beside):
        before = path.read_text()
        path.write_text(before + "\n")
        assert found.changed() == (str(path),)
        path.write_text(before)


class LabAuthenticator(Configurable):
    admin_users = Set(config=True)
    port = Integer(config=True)


def test_a_command_lines_words_are_parsed_as_the_hubs_classes_do() -> None:
    config = Config(
        LabAuthenticator={
            "admin_users": DeferredConfigList(["ada", "bob"]),
            "port": DeferredConfigList(["1", "2"]),
        },
        Unknown={"x": DeferredConfigString("1")},
    )
    assert settled(config, [LabAuthenticator]).LabAuthenticator.admin_users == {"ada", "bob"}
    assert isinstance(config.Unknown.x, DeferredConfigString)
    assert config.LabAuthenticator.port == ["1", "2"]


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"format": 99}', b"\xff"])
def test_what_no_hub_of_this_version_wrote_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever is wrong with it)
        Resolved.from_bytes(document)
