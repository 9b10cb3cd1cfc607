"""People in the file are the hub's users in the hub, its service and on the command line alike."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.hubs import Hub

#: The service cannot import a class of the file; what the hub calls people is handed on to it.
OWN_RULE = """
from jupyterhub.auth import DummyAuthenticator

class OfTheLab(DummyAuthenticator):
    def normalize_username(self, username):
        return "lab." + username.lower().removeprefix("lab.")

c.JupyterHub.authenticator_class = OfTheLab
c.OfTheLab.password = c.DummyAuthenticator.password
c.MigBroker.tiers = [
    {"name": "small", "profile": "1g.5gb"},
    {"name": "hers", "profile": "3g.20gb", "users": ["Ada"]},
]
"""


def test_an_authenticators_own_rule_for_names_counts_everywhere(tmp_path: Path) -> None:
    hub = Hub(tmp_path, layouts=[["3g.20gb", "1g.5gb"]], extra=OWN_RULE)
    with hub.running():
        assert hub.api("POST", "users", {"usernames": ["Ada", "Eve"]})[0] == 201
        for user, theirs in (("lab.ada", ["small", "hers"]), ("lab.eve", ["small"])):
            status, tiers = hub.service("GET", "tiers", token=hub.token_of(user))
            assert (status, [tier["name"] for tier in tiers]) == (200, theirs)
        assert "hers" in [tier["name"] for tier in hub.cli("tiers", "--user", "ADA")]
        assert hub.api("POST", "users/lab.eve/server", {"tier": "hers"})[0] == 403
        assert hub.api("POST", "users/lab.ada/server", {"tier": "hers"})[0] == 201
        assert [lease["user"] for lease in hub.cli("leases", "--user", "Ada")] == ["lab.ada"]
