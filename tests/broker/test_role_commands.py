"""``migspawner db role`` and what the doctor says of roles, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from jupyterhub_migspawner.cli.main import main
from jupyterhub_migspawner.db import roles
from jupyterhub_migspawner.gpu.simulator import create_state
from tests.broker.postgres import Cluster, database_with_roles

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    with database_with_roles(postgres) as made:
        yield made


@pytest.fixture
def run(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    create_state(tmp_path / "cards.json", cards=1, layouts=[["3g.20gb"]])

    def write(url: str, name: str) -> Path:
        file = tmp_path / name
        file.write_text(
            f"c.MigBroker.database_url = {url!r}\nc.MigBroker.node = 'n1'\n"
            "c.MigBroker.nvml = 'sim:cards.json'\n"
            "c.MigBroker.tiers = [{'name': 'large', 'profile': '3g.20gb'}]\n"
        )
        return file

    def run(*words: str, url: str = database) -> tuple[int, str, str]:
        status = main([*words, "-f", str(write(url, "jupyterhub_config.py"))])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def findings(answer: tuple[int, str, str]) -> list[dict[str, str]]:
    assert answer[1], answer[2]
    return [each for each in json.loads(answer[1]) if each["check"] == "roles"]


def test_a_role_is_made_with_a_password_that_only_its_file_shows(
    run: Run, database: str, tmp_path: Path
) -> None:
    name = f"{database.rpartition('/')[2]}_cli"
    file = tmp_path / "pgpass"
    status, out, err = run("db", "role", "n1", "--name", name, "--pgpass", str(file))
    assert (status, err) == (0, "")
    assert f"Role {name} has the rights of node n1. Its password is in {file}" in out.replace(
        "\n", " "
    )
    line = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert line.startswith(f"*:*:{database.rpartition('/')[2]}:{name}:")
    password = line.rstrip().rpartition(":")[2]
    assert password not in out
    with psycopg.connect(database) as owner:
        (stored,) = owner.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name]
        ).fetchone() or ("",)
    assert stored.startswith("SCRAM-SHA-256$")
    with open(os.environ["PGPASSFILE"], "a") as known:
        known.write(line.replace("*:*:", f"*:{urlsplit(database).port}:", 1))
    url = database.replace("postgres@", f"{name}@")
    assert run("agent", "--once", url=url)[0] == 0
    assert json.loads(run("nodes", "--json")[1])[0]["name"] == "n1"
    # With the role, the command line sees its node and may not look further.
    status, out, err = run("requests", url=url)
    assert status == 1
    assert f"refuses its role {name}: permission denied for table requests" in err
    assert findings(run("doctor", "--json", url=url))[0]["state"] == "ok"
    # Once more: the file is there, and its password stays.
    assert run("db", "role", "n1", "--name", name, "--pgpass", str(file))[0] == 1
    psycopg.connect(url).close()


def test_the_doctor_names_what_a_role_lacks(run: Run, database: str) -> None:
    name = f"{database.rpartition('/')[2]}_cli"
    assert run("db", "role", "n1", "--name", name)[0] == 0
    assert [each["state"] for each in findings(run("doctor", "--json"))] == ["ok"]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"REVOKE UPDATE ON slices FROM {name}")  # type: ignore[arg-type]
    (finding,) = findings(run("doctor", "--json"))
    assert finding["state"] == "wrong"
    assert f"Role {name} of node n1: lacks UPDATE on slices" in finding["message"]
    assert finding["mend"] == f"`migspawner db role n1 --name {name}`."
    assert run("db", "role", "n1", "--name", name)[0] == 0
    assert [each["state"] for each in findings(run("doctor", "--json"))] == ["ok"]


def test_a_role_of_another_node_is_no_use(run: Run, database: str) -> None:
    name = f"{database.rpartition('/')[2]}_cli"
    roles.make(database, "n2", name, "secret")
    with open(os.environ["PGPASSFILE"], "a") as known:
        known.write(f"*:{urlsplit(database).port}:*:{name}:secret\n")
    status, _, err = run("agent", "--once", url=database.replace("postgres@", f"{name}@"))
    assert status == 1
    assert "is that of node n2, and this is node n1" in err


def test_it_is_printed_and_removed(run: Run, database: str) -> None:
    name = f"{database.rpartition('/')[2]}_cli"
    status, out, _ = run("db", "role", "n1", "--name", name, "--print")
    assert status == 0
    assert "CREATE ROLE" in out
    assert "PASSWORD" not in out
    assert roles.find(database) == ()
    run("db", "role", "n1", "--name", name)
    status, out, _ = run("db", "role", "n1", "--remove", "--json")
    assert json.loads(out) == {"node": "n1", "roles": [name]}
    assert run("db", "role", "n1", "--remove")[0] == 1
    assert run("db", "role", "n1", "--remove", "--print")[0] == 2
