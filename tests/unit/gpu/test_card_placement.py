"""The rules about layouts tried at length, and beside what the simulated driver does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.arrange import Want, arrange, is_legal, legal_layouts, nearest
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.gpu.simulator import MODELS, card_uuids, create_state, profiles_of


@given(st.sampled_from(sorted(MODELS)), st.data())
def test_the_driver_makes_what_is_legal_and_refuses_what_is_not(
    model: str, data: st.DataObject
) -> None:
    """What the rules allow is what the simulated driver does, which counts in its own way."""
    profiles = profiles_of(MODELS[model])
    if not profiles:
        return
    places = [(each, place) for each in profiles for place in each.placements]
    chosen = data.draw(st.lists(st.sampled_from(places), max_size=6))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "machine.json"
        create_state(path, cards=1, model=model, layouts=[[]])
        nvml = Nvml(f"sim:{path}")
        (card,) = card_uuids(path)
        there: list[Want] = []
        for profile, place in chosen:
            want = (profile.name, place.start)
            if want in there:
                continue
            legal = is_legal(profiles, [*there, want]) == ""
            try:
                nvml.create_instance(card, *want)
                made = True
            except GpuError:
                made = False
            assert made == legal, (there, want)
            there += [want] if made else []
        nvml.close()


@given(st.sampled_from(sorted(MODELS)), st.data())
def test_whatever_is_arranged_is_legal_and_complete(model: str, data: st.DataObject) -> None:
    profiles = profiles_of(MODELS[model])
    names = data.draw(
        st.lists(st.sampled_from([each.name for each in profiles]), max_size=8)
        if profiles
        else st.just([])
    )
    possible = any(
        Counter(name for name, _ in each) == Counter(names) for each in legal_layouts(profiles)
    )
    if possible:
        layout = arrange(profiles, names)
        assert is_legal(profiles, layout) == ""
        assert Counter(name for name, _ in layout) == Counter(names)
    else:
        with pytest.raises(GpuError, match="nearest layout that fits is"):
            arrange(profiles, names)
        assert arrange(profiles, nearest(profiles, names))
