"""What is kept of sessions' processes, and reports of other users on their slices."""

from __future__ import annotations

from dataclasses import replace

from jupyterhub_migspawner.broker.processes import KEPT, MOST_KNOWN, MOST_REPORTED
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.model.processes import ProcessesRow
from tests.broker.lab import Lab


def test_the_server_of_a_start_is_known_with_its_user(lab: Lab) -> None:
    lab.report()
    lease = lab.start()
    lab.broker.processes.note_server(lease.attempt, ProcessesRow(0, 1000, "boot", ((7, 70),)))
    row = ProcessesRow(lease.id, 1000, "boot", ((7, 70),))
    assert lab.broker.processes.of_node("n1") == {lease.id: row}
    assert lab.broker.processes.of_node("n2") == {}
    # What the agent has seen before is kept, and what is not known now changes nothing.
    lab.broker.processes.note([replace(row, known=((8, 80), (7, 70)))])
    lab.broker.processes.note_server(lease.attempt, ProcessesRow(0, None, "boot", ((7, 70),)))
    assert lab.broker.processes.of_node("n1") == {lease.id: replace(row, known=((7, 70), (8, 80)))}
    lab.broker.processes.note_server(lease.attempt, ProcessesRow(0, 1000, "another", ((9, 90),)))
    found = lab.broker.processes.of_node("n1")[lease.id]
    assert (found.boot_id, found.known) == ("another", ((9, 90),))


def test_a_user_that_is_known_is_not_changed_by_what_an_agent_sees(lab: Lab) -> None:
    lab.report()
    lease = lab.start()
    lab.broker.processes.note([ProcessesRow(lease.id, None, "boot", ())])
    lab.broker.processes.note([ProcessesRow(lease.id, 1000, "boot", ())])
    lab.broker.processes.note([ProcessesRow(lease.id, 0, "boot", ())])
    assert lab.broker.processes.of_node("n1")[lease.id].uid == 1000


def test_of_a_session_with_very_many_processes_the_first_are_kept(lab: Lab) -> None:
    lab.report()
    lease = lab.start()
    many = tuple((pid, pid) for pid in range(1, 2 * MOST_KNOWN))
    lab.broker.processes.note([ProcessesRow(lease.id, 1, "boot", many)])
    assert lab.broker.processes.of_node("n1")[lease.id].known == many[:MOST_KNOWN]
    lab.broker.processes.note_server(lease.attempt, ProcessesRow(0, 1, "boot", ((5000, 1),)))
    assert lab.broker.processes.of_node("n1")[lease.id].known[0] == (5000, 1)
    assert len(lab.broker.processes.of_node("n1")[lease.id].known) == MOST_KNOWN


def test_nothing_is_kept_of_sessions_that_are_over(lab: Lab) -> None:
    lab.report()
    lease, lost = lab.start("ada"), lab.start("grace")
    for each in (lease, lost):
        lab.broker.processes.note([ProcessesRow(each.id, 1, "boot", ((7, 70),))])
    lab.broker.processes.forget_ended()
    assert set(lab.broker.processes.of_node("n1")) == {lease.id, lost.id}
    lab.stop(lease)
    lab.broker.processes.note_server(lease.attempt, ProcessesRow(0, 1, "boot", ((8, 80),)))
    lab.broker.processes.forget_ended()
    # Of one that was lost with its card, processes may still run.
    assert set(lab.broker.processes.of_node("n1")) == {lost.id}
    with lab.store.transaction() as tx:
        queries.leases.lose(tx, lost.id, lab.clock(), "gone")
    lab.broker.processes.forget_ended()
    assert set(lab.broker.processes.of_node("n1")) == {lost.id}
    lab.clock.pass_time(seconds=KEPT.total_seconds() + 1)
    lab.broker.processes.forget_ended()
    assert lab.broker.processes.of_node("n1") == {}


def test_another_user_is_reported_once_in_a_lease(lab: Lab) -> None:
    lab.report()
    lease = lab.start()
    assert lab.broker.processes.note_foreign(lease.id, {7: "bob"}, "process 1")
    assert not lab.broker.processes.note_foreign(lease.id, {7: "bob"}, "process 2")
    assert lab.broker.processes.note_foreign(lease.id, {7: "bob", 8: "eve"}, "process 3")
    assert lab.broker.processes.note_foreign(lease.id, {7: "bob"}, "process 4", again=[7])
    events = [each for each in lab.broker.events.find() if each.kind == "lease.foreign"]
    told = sorted((each.detail["why"], each.detail["users"]) for each in events)
    assert told == [("process 1", ["bob"]), ("process 3", ["eve"]), ("process 4", ["bob"])]
    assert {each.user for each in events} == {"ada"}
    lab.stop(lease)
    assert not lab.broker.processes.note_foreign(lease.id, {9: "joe"}, "process 5")
    assert not lab.broker.processes.note_foreign(10**9, {9: "joe"}, "process 5")


def test_very_many_other_users_fill_no_log(lab: Lab) -> None:
    lab.report()
    lease = lab.start()
    for uid in range(2 * MOST_REPORTED):
        lab.broker.processes.note_foreign(lease.id, {uid: str(uid)}, "process 1")
    assert lab.kinds().count("lease.foreign") == MOST_REPORTED


def test_processes_that_come_and_go_on_a_free_slice_fill_no_log(lab: Lab) -> None:
    lab.report()
    row = lab.broker.slices.find()[0].row
    for pid in range(1, 20):
        assert lab.broker.slices.shut_out(row.id, [pid])
    assert lab.broker.slices.keep_back(row.id, "Not empty after lease 1 of ada: process 20.")
    assert lab.kinds().count("slice.quarantined") == 1
    assert lab.broker.slices.find()[0].row.quarantined.endswith("process 20.")
    lab.broker.slices.let_in_again(row.id)
    assert lab.broker.slices.find()[0].row.quarantined == ""
    assert lab.broker.slices.quarantine(row.id, "the fan is loud", "root")
    assert not lab.broker.slices.keep_back(row.id, "Not empty after lease 1 of ada: process 21.")
    assert not lab.broker.slices.keep_back(10**9, "Not empty after")


def test_the_user_of_a_server_is_the_one_known_before_its_launch(lab: Lab) -> None:
    lease = lab.start("ada")
    lab.broker.processes.note_server(lease.attempt, ProcessesRow(0, 1000))
    lab.broker.processes.note_server(lease.attempt, ProcessesRow(0, 0, "boot", ((42, 7),)))
    known = lab.broker.processes.of_node("n1")[lease.id]
    assert (known.uid, known.known) == (1000, ((42, 7),))
