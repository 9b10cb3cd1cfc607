"""Slices as Slurm knows them: names, lines and counts; and what slurmd itself reads in them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.slurm.gres import (
    Gres,
    card_type,
    conf_lines,
    counted,
    differences,
    gres_of,
    node_line,
    read_gres,
    slice_type,
)

A100 = "NVIDIA A100-SXM4-40GB"


def card(index: int, *, minor: int | None = None, model: str = A100, mig: bool = True) -> CardRow:
    return CardRow(
        uuid=f"GPU-{index}",
        node="n1",
        index=index,
        model=model,
        memory_mib=40960,
        mig_enabled=mig,
        state="ok",
        layout=(),
        target=None,
        problem="",
        device_minor=index if minor is None else minor,
    )


def cut(index: int, profile: str, start: int, gi: int, **changes: object) -> SliceRow:
    values = {
        "id": 10 * index + start,
        "node": "n1",
        "card_uuid": f"GPU-{index}",
        "card_index": index,
        "profile": profile,
        "start": start,
        "size": 1,
        "compute_slices": 1,
        "memory_mib": 4864,
        "whole": False,
        "uuid": f"MIG-{index}-{start}",
        "gi_id": gi,
        "ci_id": 0,
        "present": True,
        "quarantined": "",
    }
    return SliceRow(**{**values, **changes})  # type: ignore[arg-type]


MIXED = [cut(0, "3g.20gb", 0, 2), cut(0, "1g.5gb", 5, 9), cut(0, "1g.5gb", 4, 7)]


@pytest.mark.parametrize(
    ("model", "profile", "kind"),
    [
        (A100, "3g.20gb", "nvidia_a100_3g.20gb"),
        ("NVIDIA H100 80GB HBM3", "4g.40gb", "nvidia_h100_80gb_hbm3_4g.40gb"),
        ("A100-PCIE-40GB", "1g.5gb+me", "a100_1g.5gb+me"),
        ("NVIDIA A30", "1g.6gb", "nvidia_a30_1g.6gb"),
    ],
)
def test_types_are_those_of_slurms_own_detection(model: str, profile: str, kind: str) -> None:
    assert slice_type(model, profile) == kind


def test_a_card_without_mig_has_its_whole_name() -> None:
    assert card_type(A100) == "nvidia_a100-sxm4-40gb"


def test_each_slice_is_a_gpu_with_the_files_of_its_card_and_its_own() -> None:
    found = gres_of([card(1, mig=False), card(0, minor=3)], MIXED)
    assert [each.type for each in found] == [
        "nvidia_a100_3g.20gb",
        "nvidia_a100_1g.5gb",
        "nvidia_a100_1g.5gb",
        "nvidia_a100-sxm4-40gb",
    ]
    # GPU instance 7 of the card with minor 3: 3 + 9 * (15 * 3 + 7), and its compute instance.
    assert found[1].files == (
        "/dev/nvidia3",
        "/dev/nvidia-caps/nvidia-cap471",
        "/dev/nvidia-caps/nvidia-cap472",
    )
    assert found[3].files == ("/dev/nvidia1",)


def test_a_card_without_slices_is_never_shown_to_slurm() -> None:
    assert gres_of([card(0)], []) == ()
    assert gres_of([card(0)], [cut(0, "1g.5gb", 0, 7, present=False)]) == ()
    assert gres_of([card(0)], [cut(0, "1g.5gb", 0, 7, ci_id=None)]) == ()
    assert conf_lines("n1", (), detected=True) == []
    assert node_line("n1", ()) == "NodeName=n1"


def test_counts_are_per_type() -> None:
    found = gres_of([card(0)], MIXED)
    assert node_line("n1", found) == (
        "NodeName=n1 Gres=gpu:nvidia_a100_3g.20gb:1,gpu:nvidia_a100_1g.5gb:2"
    )
    assert conf_lines("n1", found, detected=True) == ["NodeName=n1 AutoDetect=nvml"]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("gpu:nvidia_a100_1g.5gb:7(S:0-1),gpu:nvidia_a100_3g.20gb:1(S:0,1)", (7, 1)),
        ("gpu:nvidia_a100_1g.5gb:7,shard:4,gpu:nvidia_a100_3g.20gb:1", (7, 1)),
        ("(null)", (0, 0)),
        ("", (0, 0)),
        ("gpu:nvidia_a100_1g.5gb", (1, 0)),
    ],
)
def test_what_slurm_prints_is_read(text: str, counts: tuple[int, int]) -> None:
    found = read_gres(text)
    small, large = found.get("nvidia_a100_1g.5gb", 0), found.get("nvidia_a100_3g.20gb", 0)
    assert (small, large) == counts


def test_gpus_without_a_type_are_counted_too() -> None:
    assert read_gres("gpu:4(S:0)") == {"": 4}


@given(st.text(max_size=200))
def test_junk_is_no_gpu_and_no_error(text: str) -> None:
    assert all(count >= 0 for count in read_gres(text).values())


kinds = st.from_regex(r"[a-z][a-z0-9_.+-]{0,20}", fullmatch=True)


@given(st.dictionaries(kinds, st.integers(1, 64), max_size=6))
def test_what_is_written_is_read_back(counts: dict[str, int]) -> None:
    gres = [Gres(kind, ()) for kind, count in counts.items() for _ in range(count)]
    words = node_line("n1", gres).partition("Gres=")[2]
    assert read_gres(words) == counts == counted(gres)
    assert differences("n1", counts, read_gres(words)) == []


def test_each_difference_is_a_sentence() -> None:
    assert differences("n1", {"a": 2, "b": 1}, {"a": 1, "": 4}) == [
        "Node n1: its cards have 2 gpu:a, and Slurm has 1.",
        "Node n1: its cards have 1 gpu:b, and Slurm has none.",
        "Node n1: its cards have no gpu without a type, and Slurm has 4.",
    ]


def test_slurmd_reads_the_slices_as_they_are_meant(tmp_path: Path) -> None:
    """What slurmd makes of our lines, with real devices under another folder."""
    assert shutil.which("slurmd"), "slurmd is part of the Debian package slurm-wlm"
    found = gres_of([card(0), card(1, mig=False)], MIXED)
    for each in found:
        for name in each.files:
            node = tmp_path / name.lstrip("/")
            node.parent.mkdir(parents=True, exist_ok=True)
            node.touch()
    lines = [line.replace("/dev/", f"{tmp_path}/dev/") for line in conf_lines("n1", found)]
    (tmp_path / "gres.conf").write_text("\n".join(lines))
    (tmp_path / "slurm.conf").write_text(
        f"ClusterName=lab\nSlurmctldHost=localhost\nGresTypes=gpu\nSlurmUser=root\n"
        f"SlurmdSpoolDir={tmp_path}/spool\nStateSaveLocation={tmp_path}/state\n"
        f"{node_line('n1', found)} CPUs=1\n"
    )
    done = subprocess.run(
        ["slurmd", "-G", "-N", "n1", "-f", str(tmp_path / "slurm.conf")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "Gres Name=gpu" in line]
    read = []
    for line in said:
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        assert words["Count"] == "1"
        read.append(Gres(words["Type"], tuple(words["File"].split(","))))
    meant = [Gres(e.type, tuple(f"{tmp_path}{file}" for file in e.files)) for e in found]
    assert sorted(read, key=str) == sorted(meant, key=str)
