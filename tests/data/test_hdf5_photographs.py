"""Photographs out of one HDF5 file, in this process and in workers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import LoadImaged

from shared_nets.data.hdf5_photographs import Hdf5PhotographReader, Hdf5Photographs
from shared_nets.refusals import InputRefused, refusal_behind
from tests.data.lesion_sets import isic_name, jpeg, write_hdf5

pytest.importorskip("h5py", reason="h5py is not installed: pip install shared_nets[isic]")


@pytest.fixture
def hdf5(tmp_path):
    path = tmp_path / "train-image.hdf5"
    write_hdf5(path, [isic_name(i) for i in range(8)])
    return path


def load(reader):
    return LoadImaged(keys="image", reader=reader, ensure_channel_first=True, dtype=None)


def test_the_bytes_are_those_that_were_stored(hdf5):
    assert Hdf5Photographs(hdf5)[isic_name(5)] == jpeg(5)


def test_nothing_is_opened_before_it_is_needed(tmp_path):
    store = Hdf5Photographs(tmp_path / "later.hdf5")
    with pytest.raises(InputRefused, match=r"INPUT_NOT_FOUND: There is no later\.hdf5"):
        store[isic_name(0)]
    write_hdf5(tmp_path / "later.hdf5", [isic_name(0)])
    assert store[isic_name(0)] == jpeg(0)


def test_an_open_store_can_be_pickled_and_closed(hdf5):
    store = Hdf5Photographs(hdf5)
    store[isic_name(0)]
    copy = pickle.loads(pickle.dumps(store))
    store.close()
    assert copy[isic_name(1)] == jpeg(1)
    assert store[isic_name(2)] == jpeg(2)  # opened again


def test_the_reader_gives_a_photograph_with_its_facts(hdf5):
    image = load(Hdf5PhotographReader())({"image": f"{hdf5}#{isic_name(6)}"})["image"]
    assert (tuple(image.shape), image.dtype) == ((3, 24, 24), torch.uint8)
    assert int(image.float().mean().round()) == 6
    assert image.meta["header"]["format"] == "JPEG"


def test_the_reader_reads_other_files_as_before(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(9))
    assert load(Hdf5PhotographReader())({"image": str(tmp_path / "a.jpg")})["image"].shape == (3, 24, 24)


def test_workers_open_the_file_for_themselves(hdf5):
    transform = load(Hdf5PhotographReader())
    items = [{"image": f"{hdf5}#{isic_name(i)}"} for i in range(8)]
    transform(items[0])  # open in this process before the workers are forked
    loader = DataLoader(Dataset(items, transform), batch_size=2, num_workers=2)
    means = np.concatenate([batch["image"].float().mean(dim=(1, 2, 3)).numpy() for batch in loader])
    assert means.round().tolist() == list(range(8))


def test_what_is_not_there_or_damaged_is_refused(hdf5, tmp_path):
    with pytest.raises(InputRefused, match="INPUT_NOT_FOUND"):
        Hdf5Photographs(hdf5)["ISIC_9999999"]
    broken = tmp_path / "broken.hdf5"
    broken.write_bytes(hdf5.read_bytes()[:300])
    with pytest.raises(InputRefused, match=r"INPUT_UNREADABLE: broken\.hdf5 is no readable HDF5 file"):
        Hdf5Photographs(broken)[isic_name(0)]
    with pytest.raises(Exception, match="INPUT_NOT_FOUND") as failed:
        load(Hdf5PhotographReader())({"image": f"{hdf5}#ISIC_9999999"})
    assert refusal_behind(failed.value).code == "INPUT_NOT_FOUND"
