"""Servers in units with ``internal_ssl``: each has its certificate, and no other user has."""

from __future__ import annotations

from pathlib import Path

from jupyterhub_migspawner.policy.units import unit_name
from tests.launchers.systemd_hub import MachineHub
from tests.launchers.systemd_machine import booted

SSL = """
c.JupyterHub.internal_ssl = True
c.JupyterHub.internal_certs_location = "{directory}/certs"
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_bind_url.replace("http:", "https:")
c.ConfigurableHTTPProxy.api_url = c.ConfigurableHTTPProxy.api_url.replace("http:", "https:")
"""


def test_a_server_answers_with_its_certificate(tmp_path: Path) -> None:
    with booted(tmp_path) as machine:
        hub = MachineHub(machine, tmp_path, [["1g.5gb"]], SSL.format(directory=tmp_path))
        with hub.running():
            assert hub.api("POST", "users/ada")[0] == 201
            with hub.serving("ada") as report:
                keys = report["environment"]["JUPYTERHUB_SSL_KEYFILE"]
                unit = f"{unit_name('hub', 'ada', '')}.service"
                assert keys == f"/run/credentials/{unit}/keyfile"
                said = machine.run(
                    "setpriv", "--reuid=eve", "--clear-groups", "cat", keys, check=False
                )
                assert "Permission denied" in said
            assert "No such file" in machine.run("cat", keys, check=False)
