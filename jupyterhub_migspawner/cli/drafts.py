"""``migspawner requests drafts``: requests that a user has begun and not filed."""

from __future__ import annotations

import contextlib
from datetime import datetime

from jupyterhub_migspawner.broker.views import draft_view, request_view, timestamp
from jupyterhub_migspawner.cli.command import DONE, ID, Command, argument
from jupyterhub_migspawner.cli.known import require_user, require_user_to_act_for
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.cli.times import aware
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import printable

_USER = argument("--user", required=True, metavar="NAME", help="the user's name at the hub")
_ID = argument("id", type=ID, metavar="ID", help="the draft's number in the listing")


class _OfUser(Command):
    def person(self) -> Person:
        """Whose drafts they are, as far as the configuration knows."""
        return person_named(self.hub_config(), self.given.user)


class Save(_OfUser):
    """Keep a draft."""

    tells_time = True
    name = "migspawner requests drafts save"
    description = "Save an incomplete request. It is checked when it is filed."
    arguments = (
        _USER,
        argument("--id", dest="draft", type=ID, metavar="ID", help="replace this draft"),
        argument("--tier", metavar="T", help="the tier"),
        argument("--hours", metavar="H", help="for how many hours"),
        argument("--from", dest="starts_at", metavar="TIME", help="start time (2026-12-01T18:00)"),
        argument("--reason", metavar="TEXT", help="the reason"),
    )

    def run(self) -> int:
        """Write it down."""
        typed = {name: self.option(name, "") for name in ("tier", "hours", "starts_at", "reason")}
        with contextlib.suppress(ValueError):
            begin = aware(datetime.fromisoformat(typed["starts_at"]), self.zone)
            typed["starts_at"] = timestamp(begin) or ""
        broker = self.broker()
        require_user_to_act_for(self, broker, self.given.user)
        draft = broker.save_draft(self.person(), draft_id=self.option("draft"), **typed)
        return self.answer(draft_view(draft), f"Draft {draft.id} of {draft.user} is kept.")


class File(_OfUser):
    """Make a request of it."""

    name = "migspawner requests drafts file"
    description = "Submit a draft as a request."
    arguments = (_ID, _USER)

    def run(self) -> int:
        """File it."""
        request = self.broker().file_draft(self.person(), self.given.id)
        return self.answer(
            request_view(request),
            f"Draft {self.given.id} is request {request.id} now. It is {request.state}.",
        )


class Drop(_OfUser):
    """Throw it away."""

    name = "migspawner requests drafts drop"
    description = "Discard a draft."
    arguments = (_ID, _USER)

    def run(self) -> int:
        """Drop it."""
        draft = self.broker().drop_draft(self.person(), self.given.id)
        return self.answer(draft_view(draft), f"Draft {draft.id} of {draft.user} is gone.")


class Drafts(_OfUser):
    """The drafts of one user."""

    lists = True
    name = "migspawner requests drafts"
    description = "Drafts of a user's requests; the pages show them to nobody else."
    arguments = (argument("--user", metavar="NAME", help="the user's name at the hub"),)
    below = {
        "save": (Save, "save a draft"),
        "file": (File, "submit a draft as a request"),
        "drop": (Drop, "discard a draft"),
    }

    def run(self) -> int:
        """List them."""
        if self.option("user") is None:
            self.given.parser.error("say whose with --user NAME")
        broker = self.broker()
        rows = [draft_view(draft) for draft in broker.drafts(self.person())]
        if not rows:
            require_user(self, broker, self.given.user)
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("id", "id", number=True),
            Column("tier", "tier"),
            Column("hours", "hours", number=True),
            Column("from", "starts_at"),
            Column("reason", "reason", below=True),
        ]
        print_table(columns, rows, empty=f"{printable(self.given.user)} has no drafts.")
        return DONE
