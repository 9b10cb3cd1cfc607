"""No password and no token stands in a sentence, a log or the environment of another program."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.agent.hooks import run
from jupyterhub_migspawner.channels import _redacted
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import urls
from jupyterhub_migspawner.errors import ConfigError, DatabaseError, GpuError
from jupyterhub_migspawner.gpu import dcgm
from jupyterhub_migspawner.policy.notices import Channel
from tests.unit.cli.conftest import Install, install  # noqa: F401

SECRET = "hunter2T0K3N"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://hub:p@{SECRET}@db/leases",
        f"postgresql://hub:{SECRET}@x@db/leases",
        f"postgresql://hub@{SECRET}:pw@db/leases",
        f"postgresql://hub:{SECRET}",
        f"postgresql//hub:{SECRET}",
        f"host=db password={SECRET} dbname=leases",
        f"postgresql://hub:a/{SECRET}@db:port/leases",
        f"mysql://hub:p@{SECRET}@db/leases",
        f"postgresql+asyncpg://hub:p@{SECRET}@db/leases",
    ],
)
def test_a_database_url_that_is_none_does_not_show_its_password(url: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        urls.parse(url)
    assert SECRET not in str(raised.value)


def test_a_password_with_an_at_sign_is_written_with_its_code() -> None:
    with pytest.raises(DatabaseError, match="as %40"):
        urls.parse(f"postgresql://hub:p@{SECRET}@db/leases")
    url = urls.parse(f"postgresql://hub:p%40{SECRET}@db/leases")
    assert url.password == f"p@{SECRET}"
    assert urls.shown(url) == "postgresql://hub:***@db/leases"


@pytest.mark.parametrize(
    ("url", "shown"), [("leases.sqlite", "leases.sqlite"), ("/var/a b.db", "/var/a b.db")]
)
def test_a_file_name_instead_of_a_url_is_shown(url: str, shown: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        urls.parse(url)
    assert shown in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", [f"postgresql://hub:{SECRET}@db/leases"]),
        ("database_url", {"password": SECRET}),
        ("database_url", b"\xff" + SECRET.encode()),
        ("dcgm_url", [SECRET]),
        ("dcgm_url", f"http://ada:{SECRET}@localhost:9400/metrics"),
        ("notices", f"json://bot:{SECRET}@127.0.0.1"),
        ("notices", {"admins": f"json://bot:{SECRET}@127.0.0.1"}),
        ("notices", {"admins": [f"json:bot:{SECRET}@127.0.0.1"]}),
        ("notices", {"users": [f"json://bot:{SECRET}@127.0.0.1/{{else}}"]}),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(name: str, value: Any) -> None:
    config = Config()
    config.MigBroker[name] = value
    config.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb"}]
    with pytest.raises(ConfigError) as raised:
        MigBroker(config=config).settings()
    assert f"MigBroker.{name}" in str(raised.value)
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(raised.value.__cause__)


def test_settings_do_not_show_passwords_of_channels_and_exporters() -> None:
    config = Config()
    config.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb"}]
    config.MigBroker.dcgm_url = f"http://localhost:9400/metrics?token={SECRET}"
    config.MigBroker.notices = {"admins": [f"json://bot:{SECRET}@127.0.0.1"]}
    broker = MigBroker(config=config)
    assert SECRET not in repr(broker) + repr(broker.settings())


def test_an_exporter_that_is_away_is_named_without_its_query() -> None:
    with pytest.raises(GpuError) as raised:
        dcgm.ask(f"http://127.0.0.1:1/metrics?token={SECRET}")
    assert "http://127.0.0.1:1/metrics" in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        f"pbul://{SECRET}",
        f"pbul://o.{SECRET}",
        f"slack://{SECRET}/B1/C1/#gpu",
        f"discord://1234567/{SECRET}",
        f"tgram://123456789:{SECRET}/1/",
        f"json://127.0.0.1/?+X-Token={SECRET}",
        f"mailtos://hub:{SECRET}@example.org",
        f"pover://user@{SECRET}",
    ],
)
@pytest.mark.parametrize("change", [str, str.lower, str.upper])
def test_whatever_a_channel_s_url_holds_is_left_out(url: str, change: Any) -> None:
    said = _redacted(f"POST to {change(SECRET)} and a@{change(SECRET)} failed", url)
    assert SECRET.lower() not in said.lower()
    assert "failed" in said


def test_a_host_stays_and_a_short_password_does_not() -> None:
    url = "json://bot:abc@hooks.example.org:8443/path"
    said = _redacted("hooks.example.org:8443 refused abc of abcde", url)
    assert said.startswith("hooks.example.org")
    assert said.endswith("refused … of abcde")


def test_a_channel_that_fails_is_said_without_its_url(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        said = channels.send(Channel("admins", 0, f"json://b:{SECRET}@127.0.0.1:9/x"), "t", "b")
    assert said
    assert SECRET not in said + caplog.text


def test_commands_around_a_cut_get_no_secret_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUPYTERHUB_API_TOKEN", "CONFIGPROXY_AUTH_TOKEN", "JPY_API_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("HTTP_PROXY_OF_THE_ADMIN", "kept")
    code = "import os, sys; open(sys.argv[1], 'w').write(repr(dict(os.environ)))"
    command = (sys.executable, "-S", "-c", code, str(tmp_path / "environ"))
    assert run(command, 60, {"MIGSPAWNER_NODE": "n1"}) == ""
    found = (tmp_path / "environ").read_text()
    assert SECRET not in found
    assert "kept" in found
    assert "'MIGSPAWNER_NODE': 'n1'" in found


def test_a_password_on_a_command_line_is_warned_of(install: Install) -> None:  # noqa: F811
    url = f"postgresql://hub:{SECRET}@127.0.0.1:1/leases"
    answer = install.run("db", "check", f"--MigBroker.database_url={url}")
    assert answer.status == 1
    assert "~/.pgpass" in answer.err
    assert SECRET not in answer.out + answer.err
    quiet = install.run("db", "check", "--MigBroker.database_url=sqlite:///migspawner.sqlite")
    assert "pgpass" not in quiet.err


def test_a_word_that_is_not_taken_is_shown_without_its_password(
    install: Install,  # noqa: F811
) -> None:
    url = f"postgresql://hub:{SECRET}@127.0.0.1:1/leases"
    for words in (["--MigBroker.database_url", url], [f"--MigBrokr.database_url={url}"]):
        answer = install.run("db", "check", *words)
        assert answer.status == 2
        assert "No such option" in answer.err
        assert SECRET not in answer.out + answer.err
