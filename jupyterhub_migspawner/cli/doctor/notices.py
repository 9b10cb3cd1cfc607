"""What ``migspawner doctor`` says about the channels of notices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.cli.doctor.findings import OK, WRONG, Finding
from jupyterhub_migspawner.policy.notices import Channel
from jupyterhub_migspawner.policy.wording import plural


def check(found: Sequence[Channel]) -> Iterator[Finding]:
    """Check whether Apprise knows the channels; nothing is sent."""
    wrong = [problem for channel in found if (problem := channels.problem_with(channel))]
    for problem in wrong:
        yield Finding("notices", WRONG, problem, "Correct MigBroker.notices.")
    if not found:
        yield Finding("notices", OK, "Nobody is notified: MigBroker.notices is empty.")
    elif not wrong:
        yield Finding(
            "notices",
            OK,
            f"{plural(len(found), 'channel')}; `migspawner notices test` sends to them.",
        )
