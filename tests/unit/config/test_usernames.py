"""People in the admin's file are those of the hub, however their names are written there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyterhub.auth import Authenticator, DummyAuthenticator, PAMAuthenticator
from traitlets.config import Config

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.config.usernames import Usernames
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quotas import Quotas
from jupyterhub_migspawner.policy.tiers import open_tiers


class Reversed(Authenticator):
    """One with a rule of its own, and a start that must not run here."""

    def __init__(self, **kwargs: Any) -> None:
        raise AssertionError("it opens a database and talks to an identity provider")

    def normalize_username(self, username: str) -> str:
        if username == "nobody":
            raise KeyError(username)
        return self.username_map.get(username, username[::-1])


class Inherits(Authenticator):
    """One of another author that keeps the hub's rule."""


names = st.text(min_size=1, max_size=20)


@settings(deadline=None)
@given(names, st.dictionaries(names, names, max_size=5))
def test_names_are_those_that_jupyterhubs_own_authenticators_give(
    name: str, known: dict[str, str]
) -> None:
    config = Config()
    config.DummyAuthenticator.username_map = known
    hub = DummyAuthenticator(config=config)
    for chosen in ("dummy", DummyAuthenticator, "jupyterhub.auth.DummyAuthenticator"):
        config.JupyterHub.authenticator_class = chosen
        assert Usernames(config)(name) == hub.normalize_username(name)


def test_a_map_that_the_file_only_adds_to_counts() -> None:
    config = Config()
    config.Authenticator.username_map.update({"ada@example.org": "ada"})
    assert Usernames(config)("Ada@Example.org") == "ada"


def test_an_authenticator_with_a_rule_of_its_own_is_asked() -> None:
    config = Config()
    config.JupyterHub.authenticator_class = Reversed
    config.Reversed.username_map = {"Eve": "evelyn"}
    known_as = Usernames(config)
    assert (known_as("Ada"), known_as("Eve")) == ("adA", "evelyn")
    # Where it cannot say, what JupyterHub itself would do is the best guess.
    assert known_as("nobody") == "nobody"
    assert known_as.changed == {"Ada": "adA", "Eve": "evelyn"}


@pytest.mark.parametrize("chosen", ["no.such.module.Class", "no-such-entry", Inherits, 7])
def test_without_a_rule_to_ask_for_names_are_lower_case(chosen: Any) -> None:
    config = Config()
    config.JupyterHub.authenticator_class = chosen
    assert Usernames(config)("Ada") == "ada"


def test_pam_gives_the_name_of_the_account_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = ModuleType("account")
    account.pw_uid, account.pw_name = 7, "ada.lovelace"  # type: ignore[attr-defined]
    pwd = ModuleType("pwd")
    pwd.getpwnam = {"ADA": account}.__getitem__  # type: ignore[attr-defined]
    pwd.getpwuid = {7: account}.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pwd", pwd)
    config = Config()
    config.PAMAuthenticator.pam_normalize_username = True
    config.JupyterHub.authenticator_class = PAMAuthenticator
    known_as = Usernames(config)
    assert known_as("ADA") == "ada.lovelace"
    assert known_as("Mary") == "mary"  # who has no account on this machine


FILE = """
c = get_config()  # noqa
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.username_map = {"grace.hopper": "grace"}
c.MigBroker.tiers = [
    {"name": "small", "profile": "1g.5gb"},
    {"name": "large", "profile": "3g.20gb", "users": ["Ada", "ada", "Grace.Hopper"]},
    {"name": "card", "profile": "whole", "approval": True},
]
c.MigBroker.quotas = {"default": {"live": 1}, "user:Ada": {"live": 3}}
c.MigBroker.approvers = ["user:Grace.Hopper", {"approvers": ["user:Eve"], "tiers": ["card"]}]
c.MigBroker.default_tier = {"user:ADA": "large"}
c.MigBroker.notices = {
    "users": ["mailtos://u:p@example.org?to={address}"],
    "addresses": {"Ada": "ada@example.org"},
}
"""


def settings_of(folder: Path, more: str = "") -> Any:
    file = folder / "jupyterhub_config.py"
    file.write_text(FILE + more)
    return MigBroker(config=load_config_file(file)).settings()


def test_whatever_names_people_means_the_hubs_users(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ada, grace, eve = Person("ada"), Person("grace"), Person("eve")
    assert settings.tiers[1].users == ("ada", "grace")
    assert [tier.name for tier in open_tiers(settings.tiers, grace)] == ["small", "large", "card"]
    quotas: Quotas = settings.quotas
    assert (quotas.for_person(ada).live, quotas.for_person(eve).live) == (3, 1)
    assert [settings.approvers.include(each) for each in (ada, grace, eve)] == [False, True, True]
    assert settings.default_of(ada) == "large"
    assert settings.notices.address("ada") == "ada@example.org"


@pytest.mark.parametrize(
    "more",
    [
        'c.MigBroker.quotas["user:ada"] = {"live": 9}',
        'c.MigBroker.default_tier["user:ada"] = "small"',
        'c.MigBroker.notices["addresses"]["ada"] = "other@example.org"',
    ],
)
def test_two_entries_for_one_person_are_a_mistake_with_a_sentence(
    tmp_path: Path, more: str
) -> None:
    with pytest.raises(ConfigError, match="which is the same user at the hub, 'ada'"):
        settings_of(tmp_path, more)


def test_the_hub_hands_on_what_only_it_can_say(tmp_path: Path) -> None:
    """The service may not find the class of an authenticator that the file itself defines."""
    more = (
        'c.JupyterHub.authenticator_class = "only.in.the.hub.Class"\n'
        'c.MigBroker.usernames = {"Ada": "uid-1", "ada": "uid-1"}\n'
    )
    settings = settings_of(tmp_path, more)
    assert settings.tiers[1].users == ("uid-1", "grace")
    assert settings.known_as("ADA") == "uid-1"


@pytest.mark.parametrize("wrong", ["7", "['ada']", "{'ada': 7}", "{'ada': ' '}"])
def test_usernames_that_are_none_are_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"MigBroker\.usernames"):
        settings_of(tmp_path, f"c.MigBroker.usernames = {wrong}\n")
