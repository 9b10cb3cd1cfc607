"""What the program does with its words, before any command runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from jupyterhub_migspawner import __version__
from jupyterhub_migspawner.cli.main import main, migspawner


def commands(
    command: click.Command = migspawner, words: tuple[str, ...] = ()
) -> Iterator[tuple[click.Command, tuple[str, ...]]]:
    yield command, words
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for word in command.list_commands(ctx):
            below = command.get_command(ctx, word)
            assert below is not None
            yield from commands(below, (*words, word))


def takes(command: click.Command, option: str) -> bool:
    return any(option in param.opts for param in command.params)


ALL = list(commands())


def test_the_commands_of_this_release_and_no_others() -> None:
    assert [" ".join(words) for _, words in ALL if words] == [
        "demo",
        "doctor",
        "agent",
        "nodes",
        "cards",
        "cards drain",
        "cards move",
        "cards resume",
        "layout",
        "layout export",
        "layout assert",
        "layout apply",
        "slices",
        "tiers",
        "leases",
        "leases release",
        "leases adopt",
        "sessions",
        "sessions extend",
        "sessions protect",
        "sessions unprotect",
        "queue",
        "queue join",
        "queue leave",
        "requests",
        "requests drafts",
        "requests drafts save",
        "requests drafts file",
        "requests drafts drop",
        "requests create",
        "requests approve",
        "requests deny",
        "requests cancel",
        "requests revoke",
        "notices",
        "notices choose",
        "notices test",
        "quotas",
        "quotas lift",
        "quotas restore",
        "events",
        "db",
        "db check",
        "db upgrade",
        "db backup",
        "db restore",
        "db copy",
        "db compact",
        "db adopt",
        "db role",
        "slurm",
        "slurm gres",
        "simulator",
        "simulator create",
        "simulator process",
        "simulator reboot",
        "simulator lose",
    ]


@pytest.mark.parametrize("words", [words for _, words in ALL], ids=" ".join)
def test_every_command_explains_itself(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"Usage: {' '.join(['migspawner', *words])}")
    assert "--config FILE" in captured.out
    assert captured.err == ""


def test_every_command_that_answers_answers_in_json() -> None:
    silent = [" ".join(words) for command, words in ALL if not takes(command, "--json")]
    assert silent == ["", "layout", "db", "slurm", "simulator"]


def test_every_option_and_argument_is_explained() -> None:
    for command, words in ALL:
        for param in command.params:
            assert param.help, (words, param.name)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"migspawner {__version__}\n"


@pytest.mark.parametrize(
    ("line", "prog", "named"),
    [
        ("", "migspawner", "demo"),
        ("db", "migspawner db", "check, upgrade"),
        ("simulator", "migspawner simulator", "create"),
        ("slcies", "migspawner", "did you mean 'slices'?"),
        ("leases relase 1", "migspawner leases", "'relase'"),
        ("slices --jsn", "migspawner slices", "'--jsn'"),
        ("slices extra", "migspawner slices", "(extra)"),
        ("leases --xx release 1", "migspawner leases", "'--xx'"),
        ("leases --user ada adopt", "migspawner leases", "--user before 'adopt'"),
        ("slices --MigNode.x=1", "migspawner slices", "'--MigNode.x'"),
        ("slices --config", "migspawner slices", "--config"),
        ("leases release", "migspawner leases release", "ID"),
        ("leases release one", "migspawner leases release", "'one'"),
        ("leases release 0", "migspawner leases release", "'0'"),
        ("leases release 1 2", "migspawner leases release", "(2)"),
        ("requests create --user ada --tier card", "migspawner requests create", "--hours"),
        ("requests approve 1", "migspawner requests approve", "--by"),
        ("requests approve --by admin", "migspawner requests approve", "ID"),
        ("requests deny 1 --by admin --hours 3", "migspawner requests deny", "'--hours'"),
        ("events --limit 0", "migspawner events", "'0'"),
        ("events --since yesterday", "migspawner events", "'yesterday'"),
        ("events --since 99999999-01-01", "migspawner events", "'99999999-01-01'"),
        ("events --since 999999w", "migspawner events", "'999999w'"),
        ("events --kind lease.actve", "migspawner events", "lease.active"),
        ("events --kind xyz", "migspawner events", "families are node, card"),
        ("events --lease x", "migspawner events", "'x'"),
        ("events --follow --limit 5 --after 3", "migspawner events", "--after"),
        ("events --follow --limit 5 --since 1h", "migspawner events", "--since"),
        ("db compact now", "migspawner db compact", "(now)"),
        ("demo --port http", "migspawner demo", "'http'"),
        ("demo --port 65536", "migspawner demo", "65535"),
        ("demo --cards 0", "migspawner demo", "--cards"),
        ("simulator create", "migspawner simulator create", "FILE"),
        ("simulator process F --slice MIG-1 --pid x", "migspawner simulator process", "'x'"),
        ("simulator lose F", "migspawner simulator lose", "--card"),
    ],
)
def test_wrong_use_is_one_sentence_that_names_it_and_the_help(
    line: str, prog: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"{prog}: ")
    assert named in captured.err
    assert captured.err.endswith(f"See `{prog} --help`.\n")


@pytest.mark.parametrize("hours", ["nan", "inf", "-4", "0", "0.001", "soon", ""])
def test_hours_that_are_no_time_are_wrong_use(
    hours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["requests", "create", "--user", "ada", "--tier", "card", "--reason", "x"]
    assert main([*words, f"--hours={hours}"]) == 2
    assert "expected a number of hours" in capsys.readouterr().err


def test_a_flag_is_not_guessed_from_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slices", "--js"]) == 2
    assert "'--js'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["-f {} leases adopt", "leases -f {} adopt", "leases adopt --config {}"]
)
def test_the_configuration_may_stand_before_the_word_or_after_it(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.format(tmp_path / "here.py").split()) == 1
    assert "here.py" in capsys.readouterr().err


def test_a_password_in_a_wrong_word_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("db check postgresql://u:secret@host/db", "postgresql://u:secret@host/db"):
        assert main(line.split()) == 2
        assert "secret" not in capsys.readouterr().err


def test_a_strange_character_in_a_wrong_word_is_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["slices", "\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


HEAVY = (
    "jupyterhub",
    "sqlalchemy",
    "alembic",
    "pydantic",
    "pynvml",
    "prometheus_client",
    "tornado",
)


def loaded_by(*words: str) -> set[str]:
    """The names of all modules that a run of the program imports."""
    program = (
        "import sys\n"
        "from jupyterhub_migspawner.cli.main import main\n"
        f"status = main({list(words)!r})\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_loads_none_of_what_the_commands_need() -> None:
    loaded = loaded_by("--help")
    assert not loaded & {*HEAVY, "jupyterhub_migspawner.broker", "jupyterhub_migspawner.config"}


# Only a table with rows is drawn with rich.
@pytest.mark.parametrize("listing", ["leases", "queue", "slices --json", "tiers --json"])
def test_a_listing_loads_no_hub_no_agent_and_no_driver(listing: str, tmp_path: Path) -> None:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(
        "import jupyterhub_migspawner\n"
        "c = get_config()\n"
        "jupyterhub_migspawner.setup(c)\n"
        "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
        f"c.MigBroker.directory = {str(tmp_path)!r}\n"
    )
    # The first command of all makes the lease database.
    assert "alembic" in loaded_by("leases", "-f", str(file))
    loaded = loaded_by(*listing.split(), "-f", str(file))
    assert {"sqlalchemy", "pydantic"} <= loaded
    unneeded = {
        "alembic",
        "apprise",
        "cryptography",
        "email.parser",
        "jupyterhub",
        "jupyterhub_migspawner.agent",
        "jupyterhub_migspawner.db.backups",
        "jupyterhub_migspawner.db.queries.drafts",
        "jupyterhub_migspawner.db.queries.notices",
        "jupyterhub_migspawner.service",
        "jupyterhub_migspawner.spawner",
        "prometheus_client",
        "pynvml",
        "rich",
        "sqlalchemy.orm",
        "tornado",
        "yaml",
    }
    assert not loaded & unneeded


def test_a_listing_asks_no_plugins_of_pydantic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To find them, pydantic would read the metadata of every installed package."""
    package = tmp_path / "plugin-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: plugin\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[pydantic]\nplugin = plugin:plugin\n")
    (tmp_path / "plugin.py").write_text("plugin = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(
        "import os\n"
        "c = get_config()\n"
        "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
        f"c.MigBroker.directory = {str(tmp_path)!r}\n"
        "assert 'PYDANTIC_DISABLE_PLUGINS' not in os.environ, 'it is for the command alone'\n"
    )
    assert "plugin" not in loaded_by("leases", "-f", str(file))
