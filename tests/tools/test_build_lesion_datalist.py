"""The command line that turns sets of skin lesions into datalists."""

from __future__ import annotations

import json

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImaged

from shared_nets.data.hdf5_photographs import Hdf5PhotographReader
from shared_nets.data.photograph_reader import PhotographReader
from shared_nets.data.studies import list_studies
from tests.data.lesion_sets import HAM_ROWS, isic_name, isic_rows, jpeg, write_csv, write_hdf5
from tools.build_lesion_datalist import main


def load(reader, path):
    return LoadImaged(keys="image", reader=reader, ensure_channel_first=True, dtype=None)({"image": path})[
        "image"
    ]


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    parts = {}
    for split, num in (("train", 3), ("val", 2), ("test", 2)):
        parts[f"{split}_images"] = rng.integers(0, 256, (num, 28, 28, 3), dtype=np.uint8)
        parts[f"{split}_labels"] = np.arange(num, dtype=np.uint8)[:, None]
    np.savez(tmp_path / "dermamnist.npz", **parts)
    return tmp_path, parts


def test_images_of_dermamnist_come_back_through_the_reader_bit_for_bit(mnist, capsys):
    folder, parts = mnist
    output = folder / "out" / "datalist.json"
    assert main(["dermamnist", str(folder / "dermamnist.npz"), "--output", str(output)]) == 0
    assert "3 training, 2 validation, 2 test" in capsys.readouterr().out
    for key, split in (("training", "train"), ("validation", "val"), ("test", "test")):
        items = load_decathlon_datalist(output, data_list_key=key, base_dir=output.parent)
        assert [item["label"] for item in items] == parts[f"{split}_labels"].ravel().tolist()
        for i, item in enumerate(items):
            assert item["study_id"] == f"{split}_{i:05d}"
            pixels = load(PhotographReader(), item["image"]).numpy().transpose(1, 2, 0)
            assert (pixels == parts[f"{split}_images"][i]).all()
    studies = list_studies(datalist=str(output), datalist_key="test")
    assert studies[1]["image"] == str(output.parent / "images" / "test_00001.png")


def test_the_same_set_gives_the_same_bytes(mnist):
    folder, _ = mnist
    for name in ("a", "b"):
        main(["dermamnist", str(folder / "dermamnist.npz"), "--output", str(folder / name / "datalist.json")])
    for name in ("datalist.json", "images/train_00002.png"):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()


def test_images_of_isic_are_read_out_of_the_hdf5_file(tmp_path, capsys):
    pytest.importorskip("h5py", reason="h5py is not installed: pip install shared_nets[isic]")
    write_csv(tmp_path / "train-metadata.csv", isic_rows(100, num_patients=20))
    write_hdf5(tmp_path / "train-image.hdf5", [isic_name(i) for i in range(100)])
    output = tmp_path / "datalist.json"
    command = ["isic2024", str(tmp_path), "--output", str(output), "--negatives-per-fold", "3"]
    assert main(command) == 0
    assert "25 training" in capsys.readouterr().out
    raw = json.loads(output.read_text())
    assert raw["training"][0]["image"] == "train-image.hdf5#ISIC_0000000"
    assert "IP_" not in output.read_text()
    (item,) = [
        s
        for s in list_studies(datalist=str(output), datalist_key="training")
        if s["study_id"] == isic_name(90)
    ]
    assert int(load(Hdf5PhotographReader(), item["image"]).float().mean().round()) == 90


def test_ham10000_is_listed_with_folds(tmp_path, capsys):
    write_csv(tmp_path / "HAM10000_metadata.csv", HAM_ROWS)
    (tmp_path / "HAM10000_images_part_1").mkdir()
    for i, row in enumerate(HAM_ROWS):
        (tmp_path / "HAM10000_images_part_1" / f"{row['image_id']}.jpg").write_bytes(jpeg(i))
    output = tmp_path / "lists" / "ham.json"
    assert main(["ham10000", str(tmp_path), "--output", str(output), "--folds", "2"]) == 0
    assert "20 training" in capsys.readouterr().out
    studies = list_studies(datalist=str(output), datalist_key="training", dataset_dir=str(tmp_path), fold=1)
    assert load(PhotographReader(), studies[0]["image"]).shape == (3, 24, 24)
    assert "HAM_0" not in output.read_text()


def test_one_fold_becomes_the_validation_list(tmp_path, capsys):
    write_csv(tmp_path / "HAM10000_metadata.csv", HAM_ROWS)
    for i, row in enumerate(HAM_ROWS):
        (tmp_path / f"{row['image_id']}.jpg").write_bytes(jpeg(i))
    output = tmp_path / "ham.json"
    command = ["ham10000", str(tmp_path), "--output", str(output), "--folds", "2", "--validation-fold"]
    assert main([*command, "1"]) == 0
    lists = json.loads(output.read_text())
    assert {item["fold"] for item in lists["training"]} == {0}
    assert {item["fold"] for item in lists["validation"]} == {1}
    assert len(lists["training"]) + len(lists["validation"]) == len(HAM_ROWS)
    groups = [{item["group"] for item in lists[key]} for key in ("training", "validation")]
    assert groups[0].isdisjoint(groups[1])
    with pytest.raises(SystemExit):
        main([*command, "7"])
    assert "validation_fold must be one of several folds of the data, got 7" in capsys.readouterr().err


def test_a_refused_folder_ends_in_status_3(tmp_path, capsys):
    assert main(["ham10000", str(tmp_path), "--output", str(tmp_path / "x.json")]) == 3
    assert "INPUT_NOT_FOUND" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_a_number_that_does_not_fit_is_a_usage_error(tmp_path, capsys):
    write_csv(tmp_path / "train-metadata.csv", isic_rows(20, num_patients=4))
    (tmp_path / "train-image.hdf5").touch()
    with pytest.raises(SystemExit):
        main(["isic2024", str(tmp_path), "--output", "x.json"])
    assert "num_folds must be 2 to the number of patients (4), got 5" in capsys.readouterr().err
