"""``migspawner notices``: where notices are sent, a test, and which ones users turn off."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import click

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.cli.command import Command, Group, answers
from jupyterhub_migspawner.cli.existence import require_user, unknown_user
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import complain, print_json
from jupyterhub_migspawner.cli.progress import waiting
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.messages import TRIAL
from jupyterhub_migspawner.policy.notices import TOPICS, USERS, Channel, Notices

WAIT = 60.0
"""Seconds a channel is given for the test."""


class _Choose(Command):
    """A command whose ``--on`` and ``--off`` take all the words that follow them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words, with the option repeated before each topic."""
        words: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                option = word if word in ("--on", "--off") else ""
            elif option and words[-1] != option:
                words.append(option)
            words.append(word)
        return super().parse_args(ctx, words)


@click.group(cls=Group, invoke_without_command=True)
@user_option("show the notices that this user gets")
@answers(table=True)
def notices(invocation: Invocation, user: str | None) -> int:
    """Show where notices are sent; with --user, the notices that the user gets."""
    if user is not None:
        return _choices(invocation, user)
    rows = [
        {
            "audience": channel.audience,
            "channel": channel.name,
            "problem": channels.problem_with(channel),
        }
        for channel in invocation.mig().settings().notices.channels
    ]
    if invocation.as_json:
        print_json(rows)
    else:
        columns = [Column("channel", "channel"), Column("problem", "problem")]
        print_table(columns, rows, empty="Nobody is notified: MigBroker.notices is empty.")
    return DONE


def _choices(invocation: Invocation, user: str) -> int:
    broker = invocation.broker()
    require_user(invocation, broker, user)
    found = broker.notices.choices(user)
    if invocation.as_json:
        print_json(found)
    else:
        rows = [{"topic": topic, "told": found[topic], "what": TOPICS[topic]} for topic in found]
        columns = [Column("topic", "topic"), Column("told", "told")]
        print_table([*columns, Column("what", "what")], rows, empty="")
    return DONE


_TOPIC = click.Choice(tuple(TOPICS))


@notices.command(cls=_Choose, short_help="choose which notices a user gets")
@user_option("the user's name at the hub", required=True)
@click.option("--on", type=_TOPIC, multiple=True, metavar="TOPIC …", help=", ".join(TOPICS))
@click.option("--off", type=_TOPIC, multiple=True, metavar="TOPIC …", help="like --on")
@answers()
def choose(invocation: Invocation, user: str, on: tuple[str, ...], off: tuple[str, ...]) -> int:
    """Choose which notices a user gets; other topics do not change."""
    twice = sorted(set(on) & set(off))
    if twice:
        raise Refusal(f"{twice[0]} is in both --on and --off; name it once.", reason="options")
    choices = {**dict.fromkeys(on, True), **dict.fromkeys(off, False)}
    broker = invocation.broker()
    unknown = unknown_user(invocation, broker, user)
    found = broker.notices.choose(user, choices)
    if unknown:
        complain(unknown)
    wanted = ", ".join(topic for topic, is_wanted in found.items() if is_wanted)
    return invocation.answer(dict(found), f"{user} gets notices of: {wanted or 'nothing'}.")


@dataclass
class _Try:
    """A test of one channel; ``problem`` is None while it goes on."""

    channel: Channel
    user: str
    address: str
    problem: str | None = None

    def send(self) -> None:
        """Send the test."""
        self.problem = channels.send(self.channel, *TRIAL, self.user, self.address)


@notices.command(short_help="send a test notice to every channel")
@click.option(
    "--to",
    default="",
    metavar="AUDIENCE",
    help="only 'admins', 'approvers', 'group:NAME', or 'user:NAME'; default: all channels except "
    "those of users",
)
@answers(table=True)
def test(invocation: Invocation, to: str) -> int:
    """Send a test notice to every channel and show the results.

    Exit status 1 if a channel failed.
    """
    tries = _tries(invocation.mig().settings().notices, to)
    threads = [threading.Thread(target=each.send, daemon=True) for each in tries]
    for thread in threads:
        thread.start()
    with waiting("Sending a test"):
        for thread in threads:
            thread.join(WAIT)
    rows = []
    for each in tries:
        problem = f"no answer for {WAIT:.0f} seconds" if each.problem is None else each.problem
        rows.append({"channel": each.channel.name, "sent": not problem, "problem": problem})
    if invocation.as_json:
        print_json(rows)
    else:
        columns = [Column("channel", "channel"), Column("sent", "sent")]
        print_table([*columns, Column("problem", "problem")], rows, empty="")
    return DONE if all(row["sent"] for row in rows) else REFUSED


def _tries(settings: Notices, to: str) -> list[_Try]:
    user = to[len("user:") :] if to.startswith("user:") else ""
    audience = USERS if user else to
    address = ""
    found = [
        channel
        for channel in settings.channels
        if (channel.audience == audience if to else channel.audience != USERS)
    ]
    if not found:
        known = sorted({c.audience for c in settings.channels})
        raise Refusal(
            f"MigBroker.notices has no channel {'for ' + repr(to) if to else 'to try'}; it has "
            f"channels for: {', '.join(known) or 'nobody'}.",
            reason="not-found",
        )
    if any(channel.wants_address for channel in found):
        try:
            address = settings.address(user)
        except Exception as error:
            raise Refusal(
                f"MigBroker.notices: 'addresses' fails for {user!r}: {type(error).__name__}: "
                f"{error}",
                reason="conflict",
            ) from error
    return [_Try(channel, user, address) for channel in found]
