"""Many at once: threads, processes, and whole cards against small slices, on both databases."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, Lab, card

Answer = LeaseRow | Refusal | None


def at_once(work: list[Callable[[], Any]]) -> list[Any]:
    """Run all of it, each in a separate thread, released together."""
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return one()
        except Refusal as refusal:
            return refusal

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


def starts(lab: Lab, users: range, tier: str = "small") -> list[Callable[[], LeaseRow]]:
    return [lambda user=f"user{n}": lab.start(user, tier) for n in users]


def test_forty_starts_on_fourteen_slices_give_fourteen_leases(lab: Lab) -> None:
    answers = at_once(starts(lab, range(40)))
    leases = [a for a in answers if isinstance(a, LeaseRow)]
    refusals = [a for a in answers if isinstance(a, Refusal)]
    assert len(leases) == 14
    assert len({lease.slice_uuid for lease in leases}) == 14
    assert {lease.id for lease in lab.broker.leases.find()} == {lease.id for lease in leases}
    assert len(refusals) == 26
    assert {(r.reason, str(r)) for r in refusals} == {
        (
            "capacity",
            "No 1g.5gb slice is free for tier small: 14 of 14 are in use or out of service. "
            "Free now: cpu.",
        )
    }


def test_a_refusal_under_load_names_what_is_free_instead(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0), card(1, MIXED))
    answers = at_once(starts(lab, range(12)))
    (sentence,) = {str(a) for a in answers if isinstance(a, Refusal)}
    assert sentence == (
        "No 1g.5gb slice is free for tier small: 8 of 8 are in use or out of service. "
        "Free now: medium (1), cpu."
    )


def test_slices_given_back_under_load_are_given_out_again(lab: Lab) -> None:
    def rounds(user: str) -> list[tuple[int, int]]:
        taken = []
        for _ in range(5):
            try:
                lease = lab.start(user)
            except Refusal:
                continue
            taken.append((lease.id, lease.slice_id))
            lab.stop(lease)
        return taken

    answers = at_once([lambda user=f"user{n}": rounds(user) for n in range(20)])
    given = [pair for answer in answers for pair in answer]
    assert len({lease for lease, _ in given}) == len(given)
    assert lab.broker.leases.find() == ()
    assert set(lab.states().values()) == {"free"}


def test_starts_of_one_person_at_once_stay_within_their_quota(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(quotas={"default": {"live": 3}})
    lab.report()
    answers = at_once([lambda server=f"s{n}": lab.start("ada", "small", server) for n in range(12)])
    assert sum(isinstance(a, LeaseRow) for a in answers) == 3
    assert {a.reason for a in answers if isinstance(a, Refusal)} == {"quota"}
    assert len(lab.broker.leases.find(user="ada")) == 3


def test_one_attempt_asked_many_times_at_once_is_one_lease(lab: Lab) -> None:
    answers = at_once([lambda: lab.start("ada", attempt="the-one") for _ in range(16)])
    assert len({answer.id for answer in answers}) == 1
    assert len(lab.broker.leases.find()) == 1


def test_starts_of_one_server_at_once_leave_one_lease_that_it_may_run_on(lab: Lab) -> None:
    at_once([lambda: lab.start("ada") for _ in range(8)])
    states = Counter(lease.state for lease in lab.broker.leases.find())
    assert states == {"pending": 1, "releasing": 7}


def test_cancel_and_acquire_of_one_attempt_never_leave_a_lease_that_nobody_ends(
    lab: Lab,
) -> None:
    for number in range(20):
        attempt = f"race-{number}"
        at_once(
            [
                lambda attempt=attempt: lab.start(f"u-{attempt}", attempt=attempt),
                lambda attempt=attempt: lab.broker.leases.cancel(attempt, "the user left"),
            ]
        )
        lease = lab.broker.leases.of_attempt(attempt)
        assert lease is None or lease.state == "releasing"
        if lease is not None:
            lab.broker.leases.confirm_empty(lease.id)


def test_a_card_is_never_given_out_whole_and_in_part(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0))
    for number in range(12):
        user = f"boss{number}"
        grant = lab.grant(user)
        answers = at_once(
            [
                lambda user=user: lab.start(user, "card"),
                *starts(lab, range(3)),
            ]
        )
        live = [a for a in answers if isinstance(a, LeaseRow)]
        kinds = {lease.whole for lease in live}
        assert len(kinds) == 1, live
        if kinds == {True}:
            assert len(live) == 1
        for lease in live:
            lab.stop(lease)
        # The agent's part: the card is cut back.
        lab.report(card(0))
        (row,) = lab.broker.cards.find()
        if row.target is not None:
            assert lab.broker.layouts.finish_target(row.uuid)
        # A boss who came too late had the card set aside.
        if kinds == {False}:
            lab.broker.requests.cancel(grant.id, Person(user))
            lab.broker.reservations.look_after()


def test_several_people_with_grants_get_different_cards(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0), card(1), card(2))
    for number in range(6):
        lab.grant(f"boss{number}")
    answers = at_once([lambda user=f"boss{n}": lab.start(user, "card") for n in range(6)])
    leases = [a for a in answers if isinstance(a, LeaseRow)]
    assert len({lease.card_uuid for lease in leases}) == len(leases) == 3
    assert {a.reason for a in answers if isinstance(a, Refusal)} == {"capacity"}


def test_reports_of_agents_under_load_disturb_nobody(lab: Lab) -> None:
    salts = iter(range(1000))

    def report() -> None:
        for _ in range(5):
            salt = f"-{next(salts)}"
            lab.report(card(0, salt=salt), card(1, salt=salt))

    def cycle(user: str) -> None:
        for _ in range(5):
            lab.stop(lab.start(user))

    at_once([report, report, *[lambda user=f"user{n}": cycle(user) for n in range(8)]])
    assert lab.broker.leases.find() == ()
    assert len(lab.broker.leases.find(include_past=True)) == 40


PROCESS = """
import sys
from tests.broker.lab import Lab
from jupyterhub_migspawner.errors import Refusal
lab = Lab(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(12):
    try:
        lease = lab.start(f"{sys.argv[2]}{number}", attempt=f"{sys.argv[2]}-{number}")
        print(lease.slice_uuid, flush=True)
    except Refusal as refusal:
        print(refusal.reason, flush=True)
"""


def test_processes_at_once_never_get_the_same_slice(lab: Lab) -> None:
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, lab.url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for name in ("left", "right")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        outputs = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            out, _ = process.communicate(timeout=120)
            assert process.returncode == 0
            outputs += out.split()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    counted = Counter(outputs)
    assert counted.pop("capacity") == 10
    assert len(counted) == 14
    assert set(counted.values()) == {1}


WRITERS = """
import sys, threading
from tests.broker.lab import Lab
lab = Lab(sys.argv[1])
ending = threading.Event()
written = [0] * 2
def write(number):
    while not ending.is_set():
        lab.broker.layouts.record_step("GPU-0", sys.argv[2], "another")
        written[number] += 1
threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
ending.set()
for thread in threads:
    thread.join()
print(*written)
"""


def test_whoever_comes_late_gets_through_between_processes_that_write_without_a_pause(
    lab: Lab,
) -> None:
    """Nobody waits for so long that it becomes an error, neither here nor there."""
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITERS, lab.url, f"writer {number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for number in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for number in range(8):
            lab.stop(lab.start(f"user{number}"))
        for process in processes:
            written = process.communicate("end\n", timeout=120)[0]
            assert process.returncode == 0
            assert all(int(number) > 0 for number in written.split())
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(lab.broker.leases.find(include_past=True)) == 8


def test_two_creators_of_one_database_both_succeed(empty_url: str) -> None:
    labs = at_once([lambda: Lab(empty_url) for _ in range(6)])
    try:
        labs[0].report()
        assert {len(lab.broker.slices.find()) for lab in labs} == {14}
    finally:
        for lab in labs:
            lab.close()


def test_everybody_waits_their_turn_in_the_order_of_arrival(lab: Lab) -> None:
    """No start is refused or fails only because forty others came first."""
    answers = at_once(
        [lambda n=n: lab.broker.tiers.of(Person(f"user{n}")) for n in range(20)]
        + [lambda n=n: lab.start(f"user{n}") for n in range(14)]
    )
    assert sum(isinstance(a, LeaseRow) for a in answers) == 14


@pytest.mark.parametrize("whole_first", [True, False])
def test_quarantine_and_whole_card_exclude_each_other(lab: Lab, whole_first: bool) -> None:
    lab.grant("boss")
    first = lab.broker.slices.find()[0].row
    answers = at_once(
        [
            lambda: lab.start("boss", "card"),
            lambda: lab.broker.slices.quarantine(first.id, "a process is left", "agent"),
        ][:: 1 if whole_first else -1]
    )
    (lease,) = (a for a in answers if isinstance(a, LeaseRow))
    assert lease.whole


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_start_locks_cards_before_leases_as_a_report_does(
    make_lab: Callable[..., Lab],
) -> None:
    """One that replaces what an earlier start left, while a report loses the card with it."""
    lab, agent = make_lab(), make_lab()
    lab.report(card(0))
    left = lab.start("ada")
    waits = sa.text("SELECT 1 FROM pg_locks WHERE NOT granted")
    with ThreadPoolExecutor(1) as pool:
        with agent.store.transaction() as tx:
            queries.cards.lock(tx, left.card_uuid)
            again = pool.submit(lab.start, "ada")
            while not again.done():
                # The start has come as far as it gets.
                with make_lab().store.transaction() as other:
                    if other.first(waits) is not None:
                        break
            # Locked in the other order the server would end one of the two for it.
            assert queries.leases.lose(tx, left.id, lab.clock(), "its card is gone") is not None
            queries.slices.untake(tx, left.slice_id)
        assert again.result(60).state == "pending"
    assert lab.broker.leases.get(left.id).state == "lost"
