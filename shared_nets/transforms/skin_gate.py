"""The gate for photographs of skin: refuse what cannot be a skin lesion, warn of what is badly taken.

Default limits of colour were chosen on the 7,007 training images of DermaMNIST alone: a warning where 0.5 %
of them lie beyond, a refusal where 0.05 % do, rounded outwards. They are dermoscopy of mostly light skin;
limits of lightness are therefore much wider than those images ask for, so that dark skin is not called a dark
image. At 28 × 28 pixels nothing can be learned of focus: its limits are about those of sharp photographs
after a Gaussian of 4 (warning) and 8 (refusal) pixels at a long side of 512.

What is coloured like skin and as smooth passes: the back of an eye, a wooden table. It is for the network's
distance from its training images to tell those.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from shared_nets.refusals import InputRefused
from shared_nets.transforms.skin_measures import FOCUS_MIN_PX, SkinMeasures, measure_skin
from shared_nets.types import Finding

Limits = tuple[float, float]

_GIVE_LESION = "Give a dermoscopy image, or a close photograph, of one skin lesion."
_TAKE_AGAIN = "Take the photograph again."


@dataclass(frozen=True, kw_only=True)
class SkinLimits:
    """Where a photograph is warned of, and where it is refused: ``(warning, refusal)``.

    Measures are those of :class:`shared_nets.transforms.skin_measures.SkinMeasures`.

    Args:
        min_side_px: images with a shorter side are refused.
        max_aspect: longer images, as long side over short side, are warned of.
        min_chroma: less is warned of, refused.
        max_neutral_share: more is warned of, refused; likewise for every ``max_…``.
        max_foreign_share: see the measure.
        min_hue_agreement: see the measure.
        max_hue_spread: see the measure.
        max_unrest: see the measure.
        min_contrast: less is refused as blank.
        min_lightest: less is dark.
        max_white_share: more is bright.
        max_blur: more is blurred.
        min_lesion_contrast: less is warned of: no lesion seen.
        max_hair_share: more is noted; likewise
        max_surround_share: black corners.
    """

    min_side_px: int = 28
    max_aspect: float = 2.0
    min_chroma: Limits = (9.0, 7.0)
    max_neutral_share: Limits = (0.4, 0.65)
    max_foreign_share: Limits = (0.03, 0.15)
    min_hue_agreement: Limits = (0.8, 0.6)
    max_hue_spread: Limits = (15.0, 19.0)
    max_unrest: Limits = (5.7, 7.0)
    min_contrast: float = 1.0
    min_lightest: Limits = (30.0, 15.0)
    max_white_share: Limits = (0.05, 0.5)
    max_blur: Limits = (0.83, 0.93)
    min_lesion_contrast: float = 8.0
    max_hair_share: float = 0.05
    max_surround_share: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if isinstance(value, tuple) and len(value) != 2:
                raise ValueError(f"{name} must be two numbers, warning and refusal, got {value}.")
            if min(numbers) < 0:
                raise ValueError(f"{name} must not be negative, got {value}.")
            rises = name.startswith("max_")
            if len(numbers) == 2 and (numbers[0] > numbers[1] if rises else numbers[0] < numbers[1]):
                raise ValueError(f"{name} must refuse no earlier than it warns, got {value}.")


@dataclass(frozen=True, kw_only=True)
class SkinCheck:
    """The answer of :func:`skin_findings`.

    Args:
        measures: the numbers it rests on; ``None`` for an image that is too small to measure.
        findings: warnings and notes.
        refusal: why the image must not be used at all; ``None`` where it may.
    """

    measures: SkinMeasures | None
    findings: tuple[Finding, ...]
    refusal: InputRefused | None


def skin_findings(photo: Tensor, limits: SkinLimits | None = None) -> SkinCheck:
    """Judge whether a photograph shows a skin lesion, and well enough.

    Args:
        photo: ``(3, H, W)`` uint8, sRGB.
        limits: where to warn and to refuse.

    Returns:
        Measures; warnings ``IMAGE_NOT_SKIN`` (unusual colours), ``IMAGE_DARK``, ``IMAGE_BRIGHT``,
        ``IMAGE_BLURRED``, ``LESION_NOT_SEEN``, ``IMAGE_ASPECT``; notes ``IMAGE_SMALL`` (focus not judged),
        ``IMAGE_VIGNETTE``, ``IMAGE_HAIR``; and where it is certain a refusal ``IMAGE_TOO_SMALL``,
        ``IMAGE_BLANK``, ``IMAGE_DARK``, ``IMAGE_BRIGHT``, ``IMAGE_NOT_SKIN`` or ``IMAGE_BLURRED``.

    Raises:
        ValueError: the photograph has another shape or type, or no pixels.
    """
    limits = limits or SkinLimits()
    if photo.ndim == 3 and 0 < min(photo.shape[1:]) < limits.min_side_px:
        message = f"The image has {photo.shape[2]}×{photo.shape[1]} pixels."
        remedy = f"Give an image of at least {limits.min_side_px} pixels a side."
        too_small = InputRefused("IMAGE_TOO_SMALL", message, remedy)
        return SkinCheck(measures=None, findings=(), refusal=too_small)
    measures = measure_skin(photo)
    colour = _colour_doubts(measures, limits)
    refusal = (
        _bad_light(measures, limits)
        or _not_skin([words for words, is_certain in colour if is_certain])
        or _out_of_focus(measures, limits)
    )
    if refusal is not None:
        return SkinCheck(measures=measures, findings=(), refusal=refusal)
    findings = (*_warnings(measures, limits, [words for words, _ in colour]), *_notes(measures, limits))
    return SkinCheck(measures=measures, findings=findings, refusal=None)


class SkinGated(MapTransform):
    """Let photographs of skin lesions pass, with what is to be said of them.

    Writes ``image_findings``: a tuple of :class:`shared_nets.types.Finding`.

    Args:
        keys: key of the photograph, ``(3, H, W)`` uint8.
        limits: values of :class:`SkinLimits` by name, where they differ from the defaults.
        refuses: whether an image beyond the limits is refused; otherwise the refusal becomes a warning.
        findings_key: where the findings are written.
        allow_missing_keys: leave data without the key alone.

    Raises:
        ValueError: a limit is out of range.
        TypeError: a limit is unknown.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        limits: Mapping[str, Any] | None = None,
        refuses: bool = True,
        findings_key: str = "image_findings",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in (limits or {}).items()
        }
        self.limits = SkinLimits(**given)
        self.refuses, self.findings_key = refuses, findings_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the findings to a copy of ``data``.

        Raises:
            InputRefused: see :func:`skin_findings`.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            photo = d[key]
            check = skin_findings(photo.as_tensor() if isinstance(photo, MetaTensor) else photo, self.limits)
            findings = check.findings
            if check.refusal is not None:
                if self.refuses:
                    raise check.refusal
                findings = (Finding(code=check.refusal.code, message=check.refusal.message), *findings)
            d[self.findings_key] = (*d.get(self.findings_key, ()), *findings)
        return d


def _bad_light(found: SkinMeasures, limits: SkinLimits) -> InputRefused | None:
    if found.lightest < limits.min_lightest[1]:
        message = f"The image is dark all over: nine tenths lie below L* {found.lightest:.0f} of 100."
        return InputRefused("IMAGE_DARK", message, f"{_TAKE_AGAIN} Use more light.")
    if found.contrast < limits.min_contrast:
        message = f"The image shows nothing: its colours differ by no more than ΔE {found.contrast:.1f}."
        return InputRefused("IMAGE_BLANK", message, _GIVE_LESION)
    if found.white_share > limits.max_white_share[1]:
        message = f"{found.white_share:.0%} of the image are white."
        return InputRefused("IMAGE_BRIGHT", message, f"{_TAKE_AGAIN} Use less light, or cut out the lesion.")
    return None


def _colour_doubts(found: SkinMeasures, limits: SkinLimits) -> list[tuple[str, bool]]:
    """Say what speaks against skin, each with whether it is certain."""
    rules = (
        (found.chroma, limits.min_chroma, "min", "it has hardly any colour"),
        (found.neutral_share, limits.max_neutral_share, "max", "much of it is grey or white"),
        (found.foreign_share, limits.max_foreign_share, "max", "parts are green, blue or bright yellow"),
        (found.hue_agreement, limits.min_hue_agreement, "min", "its hues contradict each other"),
        (found.hue_spread, limits.max_hue_spread, "max", "its colours differ more than those of skin"),
        (found.unrest, limits.max_unrest, "max", "it is more restless than skin"),
    )
    doubts = []
    for value, (warning, refusal), kind, words in rules:
        sign = 1.0 if kind == "max" else -1.0
        if sign * value > sign * warning:
            is_certain = sign * value > sign * refusal
            limit = refusal if is_certain else warning
            doubts.append((f"{words} ({value:.2f}, limit {limit:g})", is_certain))
    return doubts


def _not_skin(reasons: list[str]) -> InputRefused | None:
    if not reasons:
        return None
    return InputRefused(
        "IMAGE_NOT_SKIN", f"The image does not show skin: {'; '.join(reasons)}.", _GIVE_LESION
    )


def _out_of_focus(found: SkinMeasures, limits: SkinLimits) -> InputRefused | None:
    if found.blur is None or found.blur <= limits.max_blur[1]:
        return None
    limit = limits.max_blur[1]
    message = f"The image is far out of focus, or was enlarged: blur {found.blur:.2f}, limit {limit:g}."
    return InputRefused("IMAGE_BLURRED", message, f"{_TAKE_AGAIN} Let the camera focus on the lesion.")


def _warnings(found: SkinMeasures, limits: SkinLimits, doubts: list[str]) -> list[Finding]:
    out = []
    if doubts:
        message = f"The image is unusual for skin: {'; '.join(doubts)}."
        out.append(Finding(code="IMAGE_NOT_SKIN", message=message))
    if found.lightest < limits.min_lightest[0]:
        message = f"The image is dark: nine tenths lie below L* {found.lightest:.0f} of 100."
        out.append(Finding(code="IMAGE_DARK", message=message))
    if found.white_share > limits.max_white_share[0]:
        message = f"{found.white_share:.0%} of the image are white, without any detail."
        out.append(Finding(code="IMAGE_BRIGHT", message=message))
    if found.blur is not None and found.blur > limits.max_blur[0]:
        message = f"The image seems out of focus: blur {found.blur:.2f}, limit {limits.max_blur[0]:g}."
        out.append(Finding(code="IMAGE_BLURRED", message=message))
    if found.lesion_contrast < limits.min_lesion_contrast:
        message = (
            f"No lesion is seen: nothing away from the edges differs from its surroundings by more than ΔE "
            f"{found.lesion_contrast:.1f}."
        )
        out.append(Finding(code="LESION_NOT_SEEN", message=message))
    aspect = max(found.height, found.width) / min(found.height, found.width)
    if aspect > limits.max_aspect:
        message = (
            f"The image is {aspect:.1f} times as long as wide; the network sees it squashed to a square."
        )
        out.append(Finding(code="IMAGE_ASPECT", message=message))
    return out


def _notes(found: SkinMeasures, limits: SkinLimits) -> list[Finding]:
    out = []
    if found.blur is None:
        message = f"Focus and hairs were not judged: no side of the image has {FOCUS_MIN_PX} pixels."
        out.append(Finding(code="IMAGE_SMALL", message=message))
    if found.surround_share > limits.max_surround_share:
        message = f"{found.surround_share:.0%} of the image are black corners, as of a dermatoscope's tube."
        out.append(Finding(code="IMAGE_VIGNETTE", message=message))
    if found.hair_share is not None and found.hair_share > limits.max_hair_share:
        message = f"Dark hairs cover {found.hair_share:.0%} of the image."
        out.append(Finding(code="IMAGE_HAIR", message=message))
    return out
