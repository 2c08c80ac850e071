"""Small folders laid out as the public sets of skin lesions are, with drawn images."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from shared_nets.data.isic2024 import CATEGORIES, NUMBERS

LEAKING = ("iddx_full", "iddx_1", "mel_thick_mm", "tbp_lv_dnn_lesion_confidence", "lesion_id", "image_type")
SITES = ("posterior torso", "head/neck", "lower extremity")


def jpeg(value: int, size: int = 24) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(buffer, "JPEG")
    return buffer.getvalue()


def isic_name(i: int) -> str:
    return f"ISIC_{i:07d}"


def isic_rows(num: int, num_patients: int) -> list[dict[str, object]]:
    rows = []
    for i in range(num):
        row: dict[str, object] = {name: round(0.5 * i + k, 3) for k, name in enumerate(NUMBERS)}
        row |= {name: f"{name} word" for name in CATEGORIES} | dict.fromkeys(LEAKING, "Malignant")
        row |= {
            "isic_id": isic_name(i),
            "patient_id": f"IP_{i % num_patients:07d}",
            "target": int(i % 10 == 0),
            "age_approx": 20 + i % 60,
            "sex": ("male", "female")[i % 2],
            "anatom_site_general": SITES[i % 3],
        }
        rows.append(row)
    return rows


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_hdf5(path: Path, names: list[str]) -> None:
    """As the challenge stores them: a scalar of raw bytes under each name; image i is as bright as i."""
    import h5py

    with h5py.File(path, "w") as file:
        for i, name in enumerate(names):
            file[name] = np.void(jpeg(i))


HAM_ROWS = [
    {"lesion_id": f"HAM_{i // 2:07d}", "image_id": isic_name(24306 + i), "dx": dx, "dx_type": "histo",
     "age": 30.0 + i, "sex": "female", "localization": "back"}
    for i, dx in enumerate(["nv", "nv", "mel", "mel", "bcc", "bcc", "akiec", "akiec", "bkl", "bkl"] * 2)
]  # fmt: skip
