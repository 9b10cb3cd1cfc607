"""One state file, many processes and threads: no update is lost, no reader sees half a state."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml

CUT = """
import sys
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.nvml import Nvml
nvml, won = Nvml(sys.argv[1]), 0
for start in range(7):
    for card in nvml.inventory().cards:
        before = {each.start for each in card.instances}
        try:
            nvml.create_instance(card.uuid, sys.argv[2], start)
        except GpuError:
            continue
print(sum(len(card.instances) for card in nvml.inventory().cards))
"""


def test_what_one_process_cuts_another_sees_at_once(make_machine) -> None:
    machine = make_machine(cards=2, layouts=[[], []])
    assert machine.layout() == []
    done = subprocess.run(
        [sys.executable, "-c", CUT, machine.nvml.spec, "1g.5gb"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "14"
    assert len(machine.layout(0)) == len(machine.layout(1)) == 7


def test_processes_that_cut_at_once_lose_nothing_and_overlap_nowhere(make_machine) -> None:
    machine = make_machine(cards=3, layouts=[[], [], []])
    workers = [
        subprocess.Popen([sys.executable, "-c", CUT, machine.nvml.spec, profile])
        for profile in ("1g.5gb", "2g.10gb", "1g.10gb", "1g.5gb")
    ]
    while any(each.poll() is None for each in workers):
        for card in machine.nvml.inventory().cards:
            assert card.problem == ""
            slots = [s for i in card.instances for s in range(i.start, i.start + i.size)]
            assert len(slots) == len(set(slots))
    assert [each.returncode for each in workers] == [0] * 4
    for card in machine.nvml.inventory().cards:
        assert sum(each.size for each in card.instances) >= 7
        assert all(each.uuid for each in card.instances)


def test_threads_of_one_process_share_one_nvml(make_machine) -> None:
    machine = make_machine(cards=2, layouts=[[], []])
    failures: list[BaseException] = []

    def work(card: str, starts: range) -> None:
        try:
            for start in starts:
                machine.nvml.create_instance(card, "1g.5gb", start)
                machine.nvml.inventory()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(card, starts))
        for card in machine.cards
        for starts in (range(0, 4), range(4, 7))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert len(machine.layout(0)) == len(machine.layout(1)) == 7


def test_a_killed_client_no_longer_counts(make_machine) -> None:
    machine = make_machine()
    script = (
        "import os, sys\n"
        "from jupyterhub_migspawner.gpu.nvml import Nvml\n"
        "Nvml(sys.argv[1]).inventory()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, machine.nvml.spec], check=False)
    assert killed.returncode == -9
    assert machine.nvml.set_mig_mode(machine.cards[0], True).mig_enabled


RECUT_FOR_EVER = """
import sys
from jupyterhub_migspawner.gpu.nvml import Nvml
nvml = Nvml(sys.argv[1])
(card,) = nvml.inventory().cards
print(flush=True)
while True:
    made = nvml.create_instance(card.uuid, "3g.20gb", 0)
    nvml.destroy_instance(card.uuid, made.gi_id)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_machine(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", RECUT_FOR_EVER, machine.nvml.spec], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        while machine.layout() == [("3g.20gb", 4)]:  # until it is seen at work
            assert writer.poll() is None
        writer.kill()
        writer.wait()
        writer.stdout.close()
        assert ("3g.20gb", 4) in machine.layout()
        machine.nvml.destroy_instance(machine.cards[0], 1)
    assert machine.layout() == [("3g.20gb", 4)]
    assert len(list(machine.path.parent.iterdir())) <= 3  # state, its lock, one unfinished


def test_a_state_file_is_not_overwritten_unless_told(make_machine) -> None:
    machine = make_machine()
    with pytest.raises(GpuError, match="exists already"):
        simulator.create_state(machine.path, cards=2)
    simulator.create_state(machine.path, cards=2, overwrite=True)
    assert len(Nvml(machine.nvml.spec).inventory().cards) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cards": 0}, "1 to 32 cards"),
        ({"cards": 1, "model": "V100"}, "known ones are A100-SXM4-40GB"),
        ({"cards": 1, "layouts": [["1g.5gb"], []]}, "layouts for 2 cards"),
        ({"cards": 1, "layouts": [["7g.40gb", "1g.5gb"]]}, "do not fit together"),
        ({"cards": 1, "layouts": [["1g.6gb"]]}, "no profile"),
        ({"cards": 1, "model": "t4", "layouts": [[]]}, "cannot be cut"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_and_no_file_is_left(
    tmp_path, options: dict[str, object], words: str
) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(GpuError, match=words):
        simulator.create_state(path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_run_or_a_slice_that_is_not_there_is_refused(
    make_machine, sleeper
) -> None:
    machine = make_machine(layouts=[["1g.5gb"]])
    gone = sleeper()
    gone.kill()
    gone.wait()
    with pytest.raises(GpuError, match=f"No process {gone.pid} runs"):
        simulator.add_process(machine.path, machine.slices[0], gone.pid)
    with pytest.raises(GpuError, match="no simulated slice 'MIG-none'"):
        simulator.remove_process(machine.path, "MIG-none", gone.pid)
    with pytest.raises(GpuError, match="name a slice"):
        simulator.remove_process(machine.path, machine.cards[0], gone.pid)
    with pytest.raises(GpuError, match="no simulated card"):
        simulator.lose_card(machine.path, "GPU-none")
