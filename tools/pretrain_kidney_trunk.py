"""Teach the image branch of CKD staging to measure kidneys, on label maps of people whose eGFR is not known.

First the trunk learns to read measures off single slices that are changed at random; then, with the trunk
kept as it is, pooling learns to read a person's measures off all slices. Nobody with an eGFR takes part.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared_nets.data.kits import read_kits
from shared_nets.nets.ckd_fusion import CKDFusion, ckd_fusion_small
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.kidney_measures import SLICE_MEASURES, left_side, side_measures, slice_measures
from shared_nets.transforms.kidney_slice_augmentation import SliceAugmentation, augment_slice
from shared_nets.transforms.kidney_slices import spread_evenly, volume_axes
from shared_nets.transforms.slice_content import SliceContent, displayed, picture_grid, slice_pictures

IMG_SIZE, PIXEL_SIZE_MM, NUM_SLICES = 128, 2.5, 24
TUMOUR_VALUE, CYST_VALUE = 0.5, -1.0
_VOXEL_MM = 1.5
_CANVAS = 214  # 321 mm
_WHAT = SliceContent(content="mask", tumour_value=TUMOUR_VALUE, cyst_value=CYST_VALUE)
_MIN_AREA_MM2 = 50.0
_KNOTS = 33
_SAVE_EVERY = 50
_FIRST_PICTURES, _REPLAYED = 1024, 4096
_VIEWS = 12
_POOL_STEPS = 1500
_HELD_OUT = 18


class Person(NamedTuple):
    """Label slices of one person, feet to head: labels and left side ``(S, R, C)``, and measures."""

    labels: npt.NDArray[np.uint8]
    is_left: npt.NDArray[np.bool_]
    measures: npt.NDArray[np.float32]


def main(arguments: list[str] | None = None) -> int:
    """Train and write the weights of the image branch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with masks/ and clinical.csv")
    parser.add_argument("--output", type=Path, required=True, help="weights to write (.pt); JSON beside it")
    parser.add_argument("--steps", type=int, default=2000, help="batches of slices")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    people = load_people(options.data_dir)
    print(f"{len(people)} people without eGFR, {sum(len(p.labels) for p in people)} slices", flush=True)
    net = ckd_fusion_small(backbone_training="full")
    record: dict[str, object] = {
        "command": vars(options) | {"data_dir": "DIR", "output": options.output.name}
    }
    record["slices"] = train_slices(net, people, options.steps, options.batch, options.seed, options.output)
    record["people"] = train_pooling(net, people, options.seed)
    set_scale(net, people)
    torch.save(image_branch(net), options.output)
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    return 0


def load_people(data_dir: Path) -> list[Person]:
    """Read the label maps of everyone whose eGFR is not known."""
    people = []
    for case in read_kits(data_dir):
        if case.egfr_ml_min is not None:
            continue
        volume: Any = nib.load(case.mask)
        kidneys = canonical_labels(np.asarray(volume.dataobj), volume.affine, label_set="kits")
        if not np.allclose(kidneys.spacing_mm, _VOXEL_MM, atol=0.01):
            raise ValueError(
                f"masks must have {_VOXEL_MM} mm voxels, got {kidneys.spacing_mm} in {case.case_id}."
            )
        axes = volume_axes(kidneys.affine)
        labels = np.ascontiguousarray(displayed(kidneys.labels, axes))  # (S, R, C)
        if not axes.superior_grows:
            labels = labels[::-1]
        is_left = left_side(labels, voxel_mm=_VOXEL_MM, midline_column=labels.shape[2] / 2.0)
        measures = side_measures(labels, is_left, voxel_mm=_VOXEL_MM)
        kept = (labels > 0).sum(axis=(1, 2)) * _VOXEL_MM**2 >= _MIN_AREA_MM2
        people.append(Person(labels[kept], is_left[kept], measures))
    return people


def train_slices(
    net: CKDFusion, people: list[Person], steps: int, batch: int, seed: int, output: Path
) -> dict[str, object]:
    """Teach trunk and slice projection to measure single slices.

    Resumes from ``output`` + ``.state``, to the bit: what a step sees follows from the seed and its number.
    """
    reader = nn.Linear(net.slice_projection.out_features, 2 * len(SLICE_MEASURES))
    trained = nn.ModuleDict({"backbone": net.backbone, "projection": net.slice_projection, "reader": reader})
    start = slice_batch(people, _FIRST_PICTURES, np.random.default_rng([seed, 0]))
    mean, std = start[1].mean(dim=0), start[1].std(dim=0)
    held_out = slice_batch(people, 256, np.random.default_rng(10**6))
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    state, first = output.with_suffix(".state"), 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        trained.load_state_dict(saved["trained"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["step"]
    seen_before = [start]
    for step in range(max(0, first - _REPLAYED // (batch // 2)), first):
        seen_before.append(slice_batch(people, batch // 2, np.random.default_rng([seed, 1 + step])))
    pictures, targets = (torch.cat(part)[-_REPLAYED:] for part in zip(*seen_before, strict=True))
    started = time.monotonic()
    for step in range(first, steps):
        # half of a batch is new, half was seen before: making a picture costs as much as learning from it
        rng = np.random.default_rng([seed, 1 + step])
        new = slice_batch(people, batch // 2, rng)
        old = torch.from_numpy(rng.integers(len(pictures), size=batch - batch // 2))
        seen, wanted = torch.cat([new[0], pictures[old]]), torch.cat([new[1], targets[old]])
        pictures = torch.cat([pictures, new[0]])[-_REPLAYED:]
        targets = torch.cat([targets, new[1]])[-_REPLAYED:]
        loss = F.smooth_l1_loss(_read(trained, seen), (wanted - mean) / std, beta=0.5)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            parts: dict[str, Any] = {"trained": trained, "optimizer": optimizer, "schedule": schedule}
            torch.save(
                {name: part.state_dict() for name, part in parts.items()} | {"step": step + 1},
                state,
            )
            r2 = _explained(_predict(trained, held_out[0]), (held_out[1] - mean) / std)
            print(
                f"step {step + 1}: loss {loss.item():.4f}, explained {r2.mean():.3f} "
                f"({r2.min():.3f} to {r2.max():.3f}), {time.monotonic() - started:.0f} s",
                flush=True,
            )
    r2 = _explained(_predict(trained, held_out[0]), (held_out[1] - mean) / std)
    return {"steps": steps, "explained_on_new_views": [round(float(v), 3) for v in r2]}


def train_pooling(net: CKDFusion, people: list[Person], seed: int) -> dict[str, object]:
    """Teach pooling and image features to measure people; held-out people say when to stop."""
    rng = np.random.default_rng(seed)
    knots = _knots(np.stack([p.measures for p in people]))
    views = [_person_views(net, person, knots, rng) for person in people]
    order = rng.permutation(len(people))
    test, train = order[:_HELD_OUT], order[_HELD_OUT:]
    start = {k: v.clone() for k, v in net.state_dict().items()}
    best_step, r2 = _fit_pooling(net, [views[i] for i in train], [views[i] for i in test], _POOL_STEPS, seed)
    net.load_state_dict(start)
    _fit_pooling(net, views, [], best_step, seed)
    return {"steps": best_step, "explained_on_held_out_people": [round(float(v), 3) for v in r2]}


def set_scale(net: CKDFusion, people: list[Person]) -> None:
    """Give the network's geometry the people as the scale of its ranks."""
    if net.geometry is None:
        raise ValueError("net must have a geometry, got none.")
    measured = []
    for person in people:
        picks, is_valid = spread_evenly(len(person.labels), NUM_SLICES)
        pictures = _picture(np.ascontiguousarray(person.labels[picks]), 1.0)[None]
        positions = torch.from_numpy(picks * _VOXEL_MM)[None].float()
        measured.append(net.geometry.measures(pictures, torch.from_numpy(is_valid)[None], positions))
    net.geometry.set_knots(torch.cat(measured))


def image_branch(net: CKDFusion) -> dict[str, Tensor]:
    """Give the weights of trunk, slice projection, pooling and image features."""
    parts = ("backbone.", "slice_projection.", "position_projection.", "pool.", "image_adapter.", "geometry.")
    return {k: v.clone() for k, v in net.state_dict().items() if k.startswith(parts)}


def slice_batch(people: list[Person], size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw pictures ``(N, 1, P, P)`` of slices changed at random, and their measures ``(N, 2·F)``."""
    pictures, targets, how = [], [], SliceAugmentation()
    for _ in range(size):
        person = people[rng.integers(len(people))]
        index = rng.integers(len(person.labels))
        labels, is_left = augment_slice(
            person.labels[index],
            person.is_left[index],
            canvas=_CANVAS,
            pixel_mm=_VOXEL_MM,
            how=how,
            rng=rng,
        )
        targets.append(slice_measures(labels, is_left, pixel_mm=_VOXEL_MM))
        pictures.append(_picture(labels[None], 1.0))
    return torch.stack(pictures), torch.from_numpy(np.stack(targets))


def _picture(labels: npt.NDArray[np.uint8], scale: float) -> Tensor:
    """Make pictures ``(S, P, P)`` as :class:`LoadKidneySlicesd` does, everything ``scale`` times as large."""
    box = (slice(0, labels.shape[1]), slice(0, labels.shape[2]))
    grid = picture_grid(
        img_size=IMG_SIZE,
        slice_shape=(labels.shape[1], labels.shape[2]),
        pixel_mm=(_VOXEL_MM * scale, _VOXEL_MM * scale),
        kidney_box=box,
        pixel_size_mm=PIXEL_SIZE_MM,
    )
    return slice_pictures(labels, None, kidney_box=box, grid=grid, what=_WHAT)


def _person_views(
    net: CKDFusion, person: Person, knots: npt.NDArray[np.float64], rng: np.random.Generator
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Trunk vectors, validity, positions and targets of a person: as is, scaled, and mirrored."""
    views = []
    net.eval()
    for number in range(_VIEWS):
        scale = 1.0 if number < 2 else float(np.exp(rng.uniform(-0.15, 0.15)))
        is_mirrored = number % 2 == 1
        kept = np.arange(len(person.labels))
        if number >= 2:  # a scan with thicker slices starts anywhere
            kept = kept[rng.integers(0, 2) :: rng.integers(1, 3)]
        picks, is_valid = spread_evenly(len(kept), NUM_SLICES)
        chosen = kept[picks]
        labels = person.labels[chosen][:, :, ::-1] if is_mirrored else person.labels[chosen]
        measures = person.measures.reshape(2, -1)[:: -1 if is_mirrored else 1].copy()
        measures *= [scale, scale, 1, scale**2, 1, 1, 1, 1]
        measures[:, 2] += 3 * np.log(scale)
        for column in (4, 5):
            measures[:, column] = np.log1p(np.expm1(measures[:, column]) * scale**3)
        pictures = _picture(np.ascontiguousarray(labels), scale)[None]
        valid = torch.from_numpy(is_valid)[None]
        with torch.no_grad():
            vectors = net.encode_slices(pictures, valid)
        positions = torch.from_numpy(chosen * _VOXEL_MM * scale)[None].float()
        views.append((vectors, valid, positions, _ranks(measures.reshape(-1), knots)[None]))
    return views


def _fit_pooling(
    net: CKDFusion,
    train: list[list[tuple[Tensor, Tensor, Tensor, Tensor]]],
    test: list[list[tuple[Tensor, Tensor, Tensor, Tensor]]],
    steps: int,
    seed: int,
) -> tuple[int, npt.NDArray[np.float64]]:
    torch.manual_seed(seed)
    vectors, valid, positions, targets = (
        torch.cat(p) for p in zip(*(v for p in train for v in p), strict=True)
    )
    trained = [net.slice_projection, net.pool, net.image_adapter]
    if net.position_projection is not None:
        trained.append(net.position_projection)
    parameters = [p for module in trained for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=_POOL_STEPS, pct_start=0.1)
    best, best_step, best_r2 = float("inf"), steps, np.full(targets.shape[1], np.nan)
    for step in range(steps):
        index = torch.randint(len(targets), (128,))
        noise = 1.0 + 0.02 * torch.randn_like(vectors[index])
        out = net.pool_slices(vectors[index] * noise, valid[index], positions[index])
        loss = F.mse_loss(out, targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if test and ((step + 1) % 50 == 0 or step + 1 == steps):
            parts = [torch.cat(p) for p in zip(*(v for p in test for v in p[:2]), strict=True)]
            with torch.no_grad():
                out = net.pool_slices(parts[0], parts[1], parts[2])
            error = float(F.mse_loss(out, parts[3]))
            if error < best:
                best, best_step, best_r2 = error, step + 1, _explained(out, parts[3])
            if (step + 1) % 250 == 0:
                print(f"pooling step {step + 1}: {loss.item():.4f} {error:.4f}", flush=True)
    return best_step, best_r2


def _knots(measures: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Quantiles of each measure over people, both sides taken together so that mirroring changes nothing."""
    both = np.concatenate(np.split(measures, 2, axis=1))  # (2 N, F)
    levels = np.nanquantile(both, np.linspace(0, 1, _KNOTS), axis=0).T  # (F, 33)
    return np.concatenate([levels, levels])


def _ranks(measures: npt.NDArray[np.float32], knots: npt.NDArray[np.float64]) -> Tensor:
    """Rank of each measure among people, from −0.9 to 0.9; a kidney that is not there has the lowest rank."""
    ranks = []
    for value, levels in zip(measures, knots, strict=True):
        low, high = (np.searchsorted(levels, value, side=side) for side in ("left", "right"))
        between = np.interp(value, levels, np.arange(len(levels))) if low == high else (low + high - 1) / 2.0
        ranks.append(-0.9 if np.isnan(value) else 0.9 * (2.0 * between / (len(levels) - 1) - 1.0))
    return torch.tensor(ranks, dtype=torch.float32)


def _read(trained: nn.ModuleDict, pictures: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        vectors = trained["backbone"](pictures)
    return trained["reader"](torch.relu(trained["projection"](vectors.float())))


def _predict(trained: nn.ModuleDict, pictures: Tensor) -> Tensor:
    trained.eval()
    with torch.no_grad():
        out = torch.cat([_read(trained, chunk) for chunk in pictures.split(64)])
    trained.train()
    return out


def _explained(predicted: Tensor, target: Tensor) -> npt.NDArray[np.float64]:
    residual = (predicted - target).square().sum(dim=0)
    return (1.0 - residual / (target - target.mean(dim=0)).square().sum(dim=0)).double().numpy()


if __name__ == "__main__":
    raise SystemExit(main())
