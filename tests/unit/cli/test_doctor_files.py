"""What the doctor says of files that others can read, change or replace."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.cli.doctor.permissions import Level, Permissions, Place
from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.keys import Binding, KeyFile
from jupyterhub_migspawner.policy.people import Person
from tests.unit.cli.conftest import Install
from tests.unit.cli.test_doctor import found, healthy  # noqa: F401

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def hub(healthy: Install) -> Install:  # noqa: F811
    """An install with everything that a hub leaves in its folder, all of it private."""
    folder = healthy.directory
    healthy.mig.key_file_of_hub().make()
    for name in ("jupyterhub.sqlite", "jupyterhub_cookie_secret", "jupyterhub-proxy.pid"):
        make(folder / name, 0o600)
    copy = folder / "migspawner.sqlite.bak"
    with sqlite3.connect(copy) as connection:
        connection.execute("CREATE TABLE leases (id)")
    connection.close()
    copy.chmod(0o600)
    keys = folder / "internal-ssl" / "hub-internal"
    keys.mkdir(parents=True, mode=0o700)
    make(keys / "hub-internal.key", 0o600)
    (folder / ".migspawner-n1.lock").touch(0o600)
    return healthy


def make(path: Path, mode: int) -> None:
    path.write_text("something")
    path.chmod(mode)


def wrong(install: Install) -> list[Any]:
    """What is not as it should be with files; every finding comes with its mend."""
    findings = found(install.run("doctor", "--json"), "files")
    bad = [each for each in findings if each["state"] != "ok"]
    assert len(findings) == len(bad) or not bad
    assert all(each["mend"] for each in bad)
    return bad


def test_private_files_are_right(hub: Install) -> None:
    assert wrong(hub) == []
    answer = hub.run("doctor", "--json")
    assert answer.status == 0
    (finding,) = found(answer, "files")
    assert "of the hub are accessible only to its user" in finding["message"]
    assert [each["state"] for each in found(answer, "key")] == ["ok"]


SECRETS = [
    "migspawner.sqlite",
    "migspawner_key",
    "jupyterhub_cookie_secret",
    "migspawner.sqlite.bak",
    "internal-ssl/hub-internal/hub-internal.key",
]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o666, 0o777])
def test_a_secret_file_that_others_can_use(hub: Install, name: str, mode: int) -> None:
    path = hub.directory / name
    path.chmod(mode)
    answer = hub.run("doctor", "--json")
    assert answer.status == 1
    (finding,) = [each for each in found(answer, "files") if each["mend"] == f"chmod 600 {path}"]
    assert finding["state"] == "wrong"
    assert finding["message"].startswith(f"{path}, ")
    assert f"mode {mode:04o}" in finding["message"]
    said = hub.run("doctor").out
    assert f"Mend: chmod 600 {path}" in said


def test_the_write_ahead_log_is_looked_at(hub: Install) -> None:
    # SQLite itself gives an empty log the mode of the database.
    broker = hub.broker
    broker.hubs.claim(hub.mig.hub_home)
    with broker.store.transaction(write=False):
        for ending in ("-wal", "-shm"):
            path = hub.directory / f"migspawner.sqlite{ending}"
            path.chmod(0o644)
            assert f"chmod 600 {path}" in {each["mend"] for each in wrong(hub)}


def test_the_hub_s_own_database_is_worse_where_everybody_gets_to_it(
    hub: Install, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (hub.directory / "jupyterhub.sqlite").chmod(0o644)
    (finding,) = wrong(hub)
    assert (finding["state"], finding["mend"][:9]) == ("warning", "chmod 600")
    assert "gets into its folder" in finding["message"]
    open_folder = Path("/tmp") / f"migspawner-test-{os.getpid()}"
    open_folder.mkdir(mode=0o755)
    try:
        make(open_folder / "hub.sqlite", 0o644)
        with hub.config.open("a") as file:
            file.write(f'c.JupyterHub.db_url = "sqlite:///{open_folder}/hub.sqlite"\n')
        (finding,) = wrong(hub)
        assert finding["state"] == "wrong"
        assert "read by everybody (mode 0644)" in finding["message"]
    finally:
        shutil.rmtree(open_folder)


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("", "warning"),
        ('c.MigBroker.database_url = "sqlite:///migspawner.sqlite"', "warning"),
        ('c.MigBroker.notices = {"admins": ["json://127.0.0.1/x"]}', "wrong"),
        ('c.ConfigurableHTTPProxy.auth_token = "x"', "wrong"),
        ('c.JupyterHub.services = [{"name": "cull", "api_token": "x"}]', "wrong"),
        ('c.GitHubOAuthenticator.client_secret = "x"', "wrong"),
        ('c.JupyterHub.cookie_secret_file = "jupyterhub_cookie_secret"', "warning"),
        ('c.JupyterHub.db_url = "postgresql://hub:pw@127.0.0.1/hub"', "wrong"),
    ],
)
def test_a_configuration_that_others_read_is_worse_with_a_password_in_it(
    hub: Install, line: str, state: str
) -> None:
    with hub.config.open("a") as file:
        file.write(f"{line}\n")
    assert wrong(hub) == []
    hub.config.chmod(0o644)
    (finding,) = wrong(hub)
    assert (finding["state"], finding["mend"]) == (state, f"chmod 600 {hub.config}")
    hub.config.chmod(0o646)
    (finding,) = wrong(hub)
    assert finding["state"] == "wrong"
    assert "changed by everybody" in finding["message"]


def test_a_pid_file_may_be_read_and_not_be_changed(hub: Install) -> None:
    path = hub.directory / "jupyterhub-proxy.pid"
    path.chmod(0o644)
    assert wrong(hub) == []
    path.chmod(0o646)
    (finding,) = wrong(hub)
    assert finding["mend"] == f"chmod go-w {path}"


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o770])
def test_a_folder_in_which_others_can_replace_files(hub: Install, mode: int) -> None:
    parent = hub.directory.parent
    before = parent.stat().st_mode
    if mode == 0o770:
        os.chown(parent, -1, 4242)
    parent.chmod(mode)
    try:
        (finding,) = wrong(hub)
        assert finding["state"] == "wrong"
        assert finding["message"].startswith(f"{parent} can be written to by ")
        assert finding["mend"].startswith("chmod g")
        assert finding["mend"].endswith(f"-w {parent}")
        # As /tmp is.
        parent.chmod(0o1777)
        assert wrong(hub) == []
    finally:
        parent.chmod(before)


def test_links_are_followed_and_their_folders_looked_at(
    hub: Install, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folder = elsewhere / "folder"
    folder.mkdir(mode=0o700)
    key = hub.directory / "migspawner_key"
    key.rename(folder / "real")
    (elsewhere / "hop").symlink_to("folder/real")
    key.symlink_to(elsewhere / "hop")
    assert wrong(hub) == []
    (folder / "real").chmod(0o644)
    elsewhere.chmod(0o777)
    mends = {each["mend"] for each in wrong(hub)}
    assert mends == {f"chmod 600 {folder / 'real'}", f"chmod go-w {elsewhere}"}


def test_links_without_an_end_are_said(hub: Install) -> None:
    key = hub.directory / "jupyterhub_cookie_secret"
    key.unlink()
    key.symlink_to(key)
    (finding,) = wrong(hub)
    assert "cannot be checked" in finding["message"]


@ROOT
@pytest.mark.parametrize("name", [*SECRETS, "jupyterhub.sqlite", "jupyterhub-proxy.pid"])
def test_a_file_of_somebody_else(hub: Install, name: str) -> None:
    path = hub.directory / name
    os.chown(path, 4242, 4242)
    # SQLite gives the files beside a database to the same user.
    found = [each for each in wrong(hub) if "belongs to 4242" in each["message"]]
    (finding,) = [each for each in found if each["mend"].split()[-1] == str(path)]
    assert all(each["mend"].startswith(f"chown root {path}") for each in found)
    assert finding["state"] == "wrong"
    assert finding["mend"] == f"chown root {path}"


@ROOT
def test_root_looks_at_the_files_of_the_user_who_runs_the_hub(hub: Install) -> None:
    for path in [hub.directory, *hub.directory.rglob("*")]:
        os.chown(path, 4242, 4242)
    assert wrong(hub) == []
    assert [each["state"] for each in found(hub.run("doctor", "--json"), "key")] == ["ok"]
    os.chown(hub.directory / "jupyterhub.sqlite", 4343, -1)
    (finding,) = wrong(hub)
    assert finding["mend"] == f"chown 4242 {hub.directory / 'jupyterhub.sqlite'}"


@pytest.mark.parametrize("name", ["leases-2026.db", "migspawner.sqlite.gz", "nightly.dump"])
@pytest.mark.parametrize("folder", ["", "backups"])
def test_copies_of_the_database_are_found(hub: Install, name: str, folder: str) -> None:
    path = hub.directory / folder / name
    path.parent.mkdir(exist_ok=True, mode=0o700)
    if name.endswith(".db"):
        shutil.copy(hub.directory / "migspawner.sqlite.bak", path)
    else:
        path.write_text("packed")
    path.chmod(0o644)
    (finding,) = wrong(hub)
    assert finding["mend"] == f"chmod 600 {path}"


def test_a_name_with_spaces_is_quoted_in_the_mend(hub: Install) -> None:
    path = hub.directory / "copy of today; rm.dump"
    make(path, 0o644)
    (finding,) = wrong(hub)
    assert finding["mend"] == f"chmod 600 '{path}'"


def test_an_access_list_that_opens_a_file_is_seen(hub: Install) -> None:
    if shutil.which("setfacl") is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("there is no setfacl")
    path = hub.directory / "migspawner_key"
    assert os.system(f"setfacl -m u:4242:r {path}") == 0
    assert any(each["mend"] == f"chmod 600 {path}" for each in wrong(hub))
    path.chmod(0o600)
    assert wrong(hub) == []


@ROOT
def test_a_user_who_may_not_look_is_told_once(hub: Install) -> None:
    places = [
        Place(name, hub.directory / name, Level.SECRET)
        for name in ("migspawner.sqlite", "migspawner_key")
    ]
    os.seteuid(65534)
    try:
        permissions = Permissions({0})
        findings = [each for place in places for each in permissions.check(place)]
        with pytest.raises(DatabaseError, match="as root or as the user who runs the hub"):
            migrations.check(f"sqlite:///{hub.directory}/migspawner.sqlite")
    finally:
        os.seteuid(0)
    (finding,) = findings
    assert finding.state == "warning"
    assert "cannot be checked (Permission denied)" in finding.message


# -- the key ---------------------------------------------------------------------------------


def run_a_server(hub: Install) -> None:
    lease = hub.broker.leases.acquire(Person("ada"), "", "small", "attempt")
    assert lease is not None
    hub.broker.leases.activate("attempt")
    keys = hub.mig.key_file_of_hub().make()
    url = "http://127.0.0.1:9/"
    hub.broker.readings.reach(
        "attempt", url, keys.seal("the token", Binding(lease.id, "attempt", url))
    )


def of_key(hub: Install) -> list[tuple[str, str]]:
    findings = found(hub.run("doctor", "--json"), "key")
    return [(each["state"], each["message"]) for each in findings]


def test_a_key_that_opens_what_was_sealed(hub: Install) -> None:
    run_a_server(hub)
    ((state, _),) = of_key(hub)
    assert state == "ok"


def test_a_lost_key_is_said(hub: Install) -> None:
    run_a_server(hub)
    key = hub.directory / "migspawner_key"
    key.unlink()
    (first, second) = of_key(hub)
    assert (first[0], second[0]) == ("wrong", "warning")
    assert "does not exist" in first[1]
    assert "none of them ends for being idle" in second[1]
    KeyFile(key).make()
    ((state, message),) = of_key(hub)
    assert state == "warning"
    assert "1 session of 1" in message


def test_a_hub_without_a_service_needs_none(hub: Install) -> None:
    (hub.directory / "migspawner_key").unlink()
    with hub.config.open("a") as file:
        file.write("c.MigBroker.service = False\n")
    assert of_key(hub) == []


def test_before_the_first_start_there_is_none(hub: Install) -> None:
    (hub.directory / "migspawner_key").unlink()
    ((state, message),) = of_key(hub)
    assert state == "ok"
    assert "when it starts" in message
