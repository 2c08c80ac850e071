"""Images that are no lesions: what they show, and that they come out the same again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tools.build_foreign_images import main


@pytest.fixture
def dataset(tmp_path):
    """Two photographs of 8 × 8 pixels: every pixel of the first holds its own number."""
    folder = tmp_path / "photographs"
    (folder / "images").mkdir(parents=True)
    numbered = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)
    for name, pixels in {"a": numbered, "b": numbered + 100}.items():
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    items = [{"study_id": name, "image": f"images/{name}.png", "label": 0} for name in "ab"]
    (folder / "datalist.json").write_text(json.dumps({"validation": items}))
    return folder


def pixels_of(folder, kind):
    items = json.loads((folder / "datalist.json").read_text())[kind]
    return np.stack([np.asarray(Image.open(folder / item["image"])) for item in items])


def test_every_kind_is_what_its_name_says(dataset, tmp_path):
    grey = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    np.savez(tmp_path / "chest.npz", test_images=grey)
    out = tmp_path / "out"
    main([str(out), "--like", str(dataset), "--medmnist", str(tmp_path / "chest.npz"), "--count", "2"])
    photographs = np.stack([np.asarray(Image.open(dataset / "images" / f"{name}.png")) for name in "ab"])
    assert np.array_equal(pixels_of(out, "negatives"), 255 - photographs)
    blank, shuffled = pixels_of(out, "blank"), pixels_of(out, "shuffled")
    assert (blank == blank[:, :1, :1]).all()
    assert not np.array_equal(shuffled, photographs)
    assert np.array_equal(np.sort(shuffled.reshape(2, -1)), np.sort(photographs.reshape(2, -1)))
    # tiles of 2 × 2 stay whole: the right neighbour of an even column is the next pixel
    assert (shuffled[:, :, 1::2].astype(int) - shuffled[:, :, ::2] == 1).all()
    assert np.array_equal(pixels_of(out, "chest"), np.repeat(grey[..., None], 3, axis=3))
    assert pixels_of(out, "noise").std() == pytest.approx(73.9, abs=4)  # of 0 to 255, all as likely
    assert pixels_of(out, "waves").shape == (2, 8, 8, 3)
    items = json.loads((out / "datalist.json").read_text())["noise"]
    assert items[1] == {"study_id": "noise_00001", "image": "images/noise_00001.png"}


def test_the_same_arguments_give_the_same_files(dataset, tmp_path):
    for name in ("one", "two"):
        main([str(tmp_path / name), "--like", str(dataset), "--count", "2"])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 11  # five kinds of two images each, and the datalist
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
