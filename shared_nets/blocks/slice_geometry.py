"""Measure the kidneys on mask slices inside a network, side by side, without anything to learn.

A trunk that is trained on a hundred people measures thickness and small cysts poorly; here they are computed.

Shape letters: B batch, S slices, H height, W width, F measures of one side, P of the pair, Q knots.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Measures of one side, in order; depth is the distance of parenchyma from what is none, in three dimensions.
SIDE: tuple[str, ...] = (
    "depth_mean_mm",
    "depth_p90_mm",
    "parenchyma_log_ml",
    "largest_area_log_cm2",
    "cyst_log_ml",
)
#: Measures of both kidneys together; of a single kidney, its own.
PAIR: tuple[str, ...] = (
    "smaller_depth_mean_mm",
    "smaller_depth_p90_mm",
    "mean_depth_mean_mm",
    "total_parenchyma_log_ml",
    "smaller_parenchyma_log_ml",
    "total_cyst_log_ml",
)
_NUM_KNOTS = 33
_MIN_SIDE_ML = 3.0


class SliceGeometry(nn.Module):
    """Measure left and right kidney on mask slices and give each measure as a rank among known people.

    The pictures hold 0 for background, 1 for parenchyma and other values for lesions, see
    :class:`shared_nets.transforms.slice_content.SliceContent`; columns run from the patient's right to left.

    Args:
        pixel_size_mm: side of a pixel, mm.
        tumour_value: value of tumour.
        cyst_value: value of cyst, below 0, so that no border between other tissues looks like cyst.

    Raises:
        ValueError: the values do not tell the tissues apart.
    """

    knots: Tensor

    def __init__(
        self, *, pixel_size_mm: float = 2.5, tumour_value: float = 0.5, cyst_value: float = -1.0
    ) -> None:
        super().__init__()
        if not cyst_value < 0.0 < tumour_value < 1.0:
            raise ValueError(
                "cyst_value must lie below 0 and tumour_value between 0 and 1, "
                f"got {cyst_value} and {tumour_value}."
            )
        self.pixel_size_mm = pixel_size_mm
        self.bounds = (cyst_value / 2.0, tumour_value / 2.0, (1.0 + tumour_value) / 2.0)
        knots = torch.linspace(0.0, 1.0, _NUM_KNOTS).expand(len(SIDE) + len(PAIR), -1)
        self.register_buffer("knots", knots.clone())

    @property
    def out_features(self) -> int:
        """Length of the output."""
        return 2 * len(SIDE) + len(PAIR)

    def set_knots(self, measures: Tensor) -> None:
        """Take people's measures ``(N, 2 F + P)`` as the scale, both sides taken together."""
        sides = measures[:, : 2 * len(SIDE)].reshape(-1, len(SIDE)).double()
        pairs = measures[:, 2 * len(SIDE) :].double()
        levels = torch.linspace(0.0, 1.0, _NUM_KNOTS, dtype=torch.float64)
        self.knots.copy_(torch.cat([torch.nanquantile(part, levels, dim=0).T for part in (sides, pairs)]))

    def forward(self, image: Tensor, is_valid: Tensor, positions_mm: Tensor | None) -> Tensor:
        """Give ranks from −0.9 to 0.9: left side, right side, pair; of a missing kidney the lowest.

        Args:
            image: mask slices, ``(B, S, H, W)``.
            is_valid: true where a slice holds an image, ``(B, S)`` bool.
            positions_mm: place of each slice along the body, ascending; ``None``: a pixel apart.

        Returns:
            ``(B, 2 F + P)``.
        """
        return self.ranks(self.measures(image, is_valid, positions_mm)).to(image.dtype)

    def ranks(self, measures: Tensor) -> Tensor:
        """Turn measures ``(B, 2 F + P)`` into ranks among the known people, as :meth:`forward` gives them."""
        knots = torch.cat([self.knots[: len(SIDE)], self.knots])  # (2 F + P, Q)
        values = measures.nan_to_num(nan=0.0).T.contiguous().to(knots)  # (2 F + P, B)
        low = torch.searchsorted(knots, values)
        high = torch.searchsorted(knots, values, right=True)
        last = _NUM_KNOTS - 1
        upper = low.clamp(1, last)
        left, right = knots.gather(1, upper - 1), knots.gather(1, upper)
        inside = (upper - 1) + ((values - left) / (right - left).clamp(min=1e-12)).clamp(0.0, 1.0)
        rank = torch.where(high > low, (low + high - 1) / 2.0, inside)  # middle of knots that are equal
        rank = (0.9 * (2.0 * rank / last - 1.0)).T  # (B, 2 F + P)
        return torch.where(measures.isnan(), -0.9, rank)

    @torch.no_grad()
    def measures(self, image: Tensor, is_valid: Tensor, positions_mm: Tensor | None) -> Tensor:
        """Give the measures themselves, ``(B, 2 F + P)``; NaN where there is no parenchyma."""
        rows = []
        for person, (pictures, valid) in enumerate(zip(image, is_valid, strict=True)):
            places = None if positions_mm is None else positions_mm[person][valid].float()
            rows.append(self._person(pictures[valid].float(), places))
        return torch.stack(rows)

    def _person(self, pictures: Tensor, places: Tensor | None) -> Tensor:
        out = pictures.new_full((2, len(SIDE)), float("nan"))
        if len(pictures) == 0:
            return torch.cat([out.flatten(), out.new_full((len(PAIR),), float("nan"))])
        if places is None:
            places = torch.arange(len(pictures), device=pictures.device) * self.pixel_size_mm
        cyst_below, tumour_above, parenchyma_above = self.bounds
        parenchyma = pictures > parenchyma_above  # (S, H, W)
        depth = distance_to_outside(parenchyma, places, self.pixel_size_mm)  # (S, H, W)
        is_cyst = pictures < cyst_below
        # a pixel on the border of the kidney may have the value of tumour, which lies in wider patches
        is_tumour = _opened((pictures > tumour_above) & ~parenchyma)
        outline = parenchyma | is_cyst | is_tumour
        thickness = _thickness_mm(places, self.pixel_size_mm)  # (S,)
        pixel_cm2 = self.pixel_size_mm**2 / 100.0
        ml = (thickness / 10.0 * pixel_cm2)[:, None, None]  # of a pixel of each slice
        is_left = torch.arange(pictures.shape[2], device=pictures.device) >= _middle(outline)
        for number, side in enumerate((is_left, ~is_left)):
            inside = parenchyma & side
            weights = (inside * ml)[inside]
            volume = weights.sum()
            if volume < _MIN_SIDE_ML:
                continue
            depths = depth[inside]
            order = depths.argsort()
            reached = weights[order].cumsum(0) / volume
            p90 = depths[order][int((reached < 0.9).sum().clamp(max=len(depths) - 1))]
            out[number] = torch.stack(
                [
                    (depths * weights).sum() / volume,
                    p90,
                    volume.log(),
                    (inside.sum(dim=(1, 2)).max() * pixel_cm2).log(),
                    ((is_cyst & side) * ml).sum().log1p(),
                ]
            )
        return torch.cat([out.flatten(), _pair(out)])


def _pair(sides: Tensor) -> Tensor:
    """Bring the measures of two sides ``(2, F)``, NaN for a missing one, to those of the pair ``(P,)``."""
    left, right = sides
    smaller = torch.fmin(left, right)  # (F,)
    volume, cyst = sides[:, 2].exp().nansum(), sides[:, 4].expm1().nansum()
    total = torch.where(volume > 0, volume.log(), torch.nan)
    cysts = torch.where(volume > 0, cyst.log1p(), torch.nan)
    return torch.stack([smaller[0], smaller[1], sides[:, 0].nanmean(), total, smaller[2], cysts])


def distance_to_outside(inside: Tensor, positions_mm: Tensor, pixel_size_mm: float) -> Tensor:
    """Give every voxel of an object its distance from the nearest voxel outside, exactly, axis by axis.

    Args:
        inside: the object on slices, ``(S, H, W)`` bool; beyond the border of a slice is outside, beyond the
            first and last slice too, at their distance from the next.
        positions_mm: place of each slice, ascending, ``(S,)``.
        pixel_size_mm: side of a pixel.

    Returns:
        Distance in mm, ``(S, H, W)``; 0 outside.

    Reference:
        P. Felzenszwalb, D. Huttenlocher, "Distance Transforms of Sampled Functions", 2012.
    """
    padded = nn.functional.pad(inside, (1, 1, 1, 1, 1, 1))  # (S + 2, H + 2, W + 2)
    steps = positions_mm.diff()
    first = steps[:1] if len(steps) else positions_mm.new_full((1,), pixel_size_mm)
    last = steps[-1:] if len(steps) else first
    places = torch.cat([positions_mm[:1] - first, positions_mm, positions_mm[-1:] + last])
    far = 1e9
    square = torch.where(padded, far, 0.0)  # (S, H, W) squared distance so far
    for axis in (2, 1):
        size = square.shape[axis]
        reach = torch.arange(size, device=square.device)
        cost = ((reach[:, None] - reach[None]) * pixel_size_mm).square().to(square)  # (to, from)
        rows = square.movedim(axis, -1)  # (..., from)
        square = torch.stack([(rows + line).amin(dim=-1) for line in cost], dim=-1).movedim(-1, axis)
    cost = (places[:, None] - places[None]).square().to(square)
    square = torch.stack([(square + line[:, None, None]).amin(dim=0) for line in cost])
    return square.sqrt()[1:-1, 1:-1, 1:-1]


def _thickness_mm(places: Tensor, alone_mm: float) -> Tensor:
    """How much of the body each slice stands for: half the way to its neighbours, ``(S,)``."""
    if len(places) < 2:
        return places.new_full((len(places),), alone_mm)
    steps = places.diff().abs()
    return torch.cat([steps[:1], (steps[1:] + steps[:-1]) / 2.0, steps[-1:]])


def _opened(mask: Tensor) -> Tensor:
    """Take away what is thinner than three pixels in a slice, ``(S, H, W)`` bool."""
    kept = -nn.functional.max_pool2d(-mask.float().unsqueeze(1), 3, stride=1, padding=1)
    return nn.functional.max_pool2d(kept, 3, stride=1, padding=1).squeeze(1).bool() & mask


def _middle(outline: Tensor) -> float:
    """Find the column between the two kidneys: halfway between the centres of two groups of columns."""
    columns = outline.sum(dim=(0, 1)).double()  # (W,)
    place = torch.arange(len(columns), device=columns.device, dtype=columns.dtype)
    used = place[columns > 0]
    if len(used) == 0:
        return len(columns) / 2.0
    low, high = float(used[0]), float(used[-1])
    if high - low < len(columns) / 4.0:  # one kidney: the middle of the picture decides
        return len(columns) / 2.0
    for _ in range(20):
        is_high = place > (low + high) / 2.0
        low, high = (
            float((columns * place)[part].sum() / columns[part].sum().clamp(min=1.0))
            for part in (~is_high, is_high)
        )
    return (low + high) / 2.0
