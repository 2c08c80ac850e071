"""The numbers of a network's metadata are standardised by its training items, missing values left out."""

from __future__ import annotations

import pytest
import torch

from shared_nets.nets.mambaderm import mambaderm_mini
from shared_nets.runtime.lesion_statistics import metadata_statistics, set_metadata_statistics
from shared_nets.transforms.lesion_schema import lesion_schema

CLINIC, ISIC = lesion_schema("dermoscopy_clinic"), lesion_schema("isic2024")


def aged(*ages):
    return [
        {"study_id": f"synthetic_{i}", "clinical": {"age": age, "sex": "female"}}
        for i, age in enumerate(ages)
    ]


def test_missing_values_count_neither_for_the_mean_nor_for_the_deviation():
    mean, std = metadata_statistics(aged(40, None, 60), CLINIC)
    assert (mean.tolist(), std.tolist()) == ([50.0], [10.0])


def test_a_number_that_never_varies_or_is_never_known_gets_a_deviation_of_one():
    mean, std = metadata_statistics(aged(45, 45), CLINIC)
    assert (mean.tolist(), std.tolist()) == ([45.0], [1.0])
    mean, std = metadata_statistics(aged(None, None), CLINIC)
    assert (mean.tolist(), std.tolist()) == ([0.0], [1.0])
    items = [{"study_id": str(i), "clinical": {"age_approx": age}} for i, age in enumerate((20, 40))]
    mean, std = metadata_statistics(items, ISIC)
    assert mean.tolist() == [30.0] + [0.0] * 33
    assert std.tolist() == [10.0] + [1.0] * 33


def test_of_long_data_evenly_spaced_items_are_looked_at():
    # of five items the first, the middle and the last: 10, 30, 50
    mean, std = metadata_statistics(aged(10, 90, 30, 90, 50), CLINIC, max_items=3)
    assert mean.tolist() == [30.0]
    assert std.tolist() == pytest.approx([(800 / 3) ** 0.5])


def test_the_network_carries_the_statistics_in_its_state():
    network = mambaderm_mini(metadata_schema=CLINIC)
    set_metadata_statistics(network, data=aged(40, 60), schema=CLINIC)
    state = network.state_dict()
    assert state["tabular_encoder.numbers_mean"].tolist() == [50.0]
    assert state["tabular_encoder.numbers_std"].tolist() == [10.0]


def test_a_network_that_looks_at_images_alone_is_left_as_it_is():
    network = mambaderm_mini()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    set_metadata_statistics(network, data=[], schema=None)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_without_an_item_there_are_no_statistics():
    with pytest.raises(ValueError, match="data must hold training items, got none"):
        metadata_statistics([], CLINIC)
