"""``migspawner notices``: where notices are sent, a test, and which ones users turn off."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.cli.command import DONE, REFUSED, Command, argument
from jupyterhub_migspawner.cli.known import require_user, unknown_user
from jupyterhub_migspawner.cli.output import Column, complain, print_json, print_table
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.messages import TRIAL
from jupyterhub_migspawner.policy.notices import TOPICS, USERS, Channel
from jupyterhub_migspawner.policy.notices import Notices as Settings

WAIT = 60.0
"""Seconds a channel is given for the test."""


class Choose(Command):
    """Choose which notices a user gets."""

    name = "migspawner notices choose"
    description = "Choose which notices a user gets; other topics do not change."
    arguments = (
        argument("--user", required=True, metavar="NAME", help="the user's name at the hub"),
        argument("--on", nargs="+", choices=tuple(TOPICS), metavar="TOPIC", help=", ".join(TOPICS)),
        argument("--off", nargs="+", choices=tuple(TOPICS), metavar="TOPIC", help="like --on"),
    )

    def run(self) -> int:
        """Note it."""
        on, off = self.option("on", []), self.option("off", [])
        twice = sorted(set(on) & set(off))
        if twice:
            raise Refusal(f"{twice[0]} is both --on and --off; name it once.", reason="options")
        choices = {**dict.fromkeys(on, True), **dict.fromkeys(off, False)}
        user, broker = self.given.user, self.broker()
        unknown = unknown_user(self, broker, user)
        found = broker.choose_notices(user, choices)
        if unknown:
            complain(unknown)
        wanted = ", ".join(topic for topic, is_wanted in found.items() if is_wanted)
        return self.answer(dict(found), f"{user} gets notices of: {wanted or 'nothing'}.")


@dataclass
class _Try:
    """A test of one channel; ``trouble`` is None while it goes on."""

    channel: Channel
    user: str
    address: str
    trouble: str | None = None

    def send(self) -> None:
        """Send the test."""
        self.trouble = channels.send(self.channel, *TRIAL, self.user, self.address)


class Test(Command):
    """Send a test."""

    lists = True
    name = "migspawner notices test"
    description = (
        "Send a test notice to every channel and show the results.\n"
        "Exit status 1 if a channel failed."
    )
    arguments = (
        argument(
            "--to",
            metavar="AUDIENCE",
            help="only 'admins', 'approvers', 'group:NAME', or 'user:NAME'; default: all "
            "channels except those of users",
        ),
    )

    def run(self) -> int:
        """Send to all at once."""
        settings = self.mig().settings().notices
        tries = self._tries(settings, self.option("to", ""))
        threads = [threading.Thread(target=each.send, daemon=True) for each in tries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        rows = []
        for each in tries:
            trouble = f"no answer for {WAIT:.0f} seconds" if each.trouble is None else each.trouble
            rows.append({"channel": each.channel.name, "sent": not trouble, "trouble": trouble})
        if self.as_json:
            print_json(rows)
        else:
            columns = [Column("channel", "channel"), Column("sent", "sent")]
            print_table([*columns, Column("trouble", "trouble")], rows, empty="")
        return DONE if all(row["sent"] for row in rows) else REFUSED

    def _tries(self, settings: Settings, to: str) -> list[_Try]:
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


class Notices(Command):
    """The channels, or the topics of one user's notices."""

    lists = True
    name = "migspawner notices"
    description = "Where notices are sent; with --user, the notices that the user gets."
    arguments = (argument("--user", metavar="NAME", help="show the notices that this user gets"),)
    below = {
        "choose": (Choose, "choose which notices a user gets"),
        "test": (Test, "send a test notice to every channel"),
    }

    def run(self) -> int:
        """List them."""
        user = self.option("user")
        if user is not None:
            return self._choices(user)
        rows = [
            {
                "audience": channel.audience,
                "channel": channel.name,
                "trouble": channels.trouble_with(channel),
            }
            for channel in self.mig().settings().notices.channels
        ]
        if self.as_json:
            print_json(rows)
        else:
            columns = [Column("channel", "channel"), Column("trouble", "trouble")]
            print_table(columns, rows, empty="Nobody is notified: MigBroker.notices is empty.")
        return DONE

    def _choices(self, user: str) -> int:
        broker = self.broker()
        require_user(self, broker, user)
        found = broker.notice_choices(user)
        if self.as_json:
            print_json(found)
        else:
            rows = [
                {"topic": topic, "told": found[topic], "what": TOPICS[topic]} for topic in found
            ]
            columns = [Column("topic", "topic"), Column("told", "told")]
            print_table([*columns, Column("what", "what")], rows, empty="")
        return DONE
