"""Kidneys by TotalSegmentator, where a user has installed it together with its weights.

Reference:
    J. Wasserthal et al., "TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images",
    Radiology: Artificial Intelligence 2023.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from shared_nets.transforms.find_kidneys import FoundKidneys
from shared_nets.transforms.kidney_mask import canonical_labels
from shared_nets.transforms.kidney_slices import field_of_view_findings
from shared_nets.transforms.sided_mask import sided_mask

_NAME = "TotalSegmentator"
_ORGANS = ["kidney_right", "kidney_left"]


class TotalSegmentator:
    """Draw kidneys by the package ``TotalSegmentator``, in place of the kidney segmentation bundle.

    Args:
        fast: use its model for 3 mm voxels.
        device: where it runs.
    """

    def __init__(self, *, fast: bool = False, device: torch.device | str = "cpu") -> None:
        self.fast = fast
        self.device = torch.device(device)

    def __call__(self, ct: MetaTensor) -> FoundKidneys:
        """Find the kidneys of a CT ``(1, I, J, K)`` HU.

        Raises:
            ImportError: the package is not installed.
            InputRefused: ``MASK_EMPTY`` where it finds no kidney.
        """
        try:
            from totalsegmentator.python_api import totalsegmentator
        except ImportError as error:
            raise ImportError(
                "This configuration needs TotalSegmentator: pip install TotalSegmentator, and its weights."
            ) from error
        affine = np.asarray(ct.affine, dtype=np.float64)
        image = nib.Nifti1Image(np.asarray(ct)[0], affine)
        device = "gpu" if self.device.type == "cuda" else self.device.type
        drawn = totalsegmentator(image, None, fast=self.fast, roi_subset=_ORGANS, device=device, quiet=True)
        kidneys = canonical_labels(np.asarray(drawn.dataobj), drawn.affine, label_set="totalsegmentator")
        number = _version()
        mask = sided_mask(kidneys, made_by="automatic", algorithm_name=_NAME, algorithm_version=number)
        centre = affine @ [*((np.array(kidneys.grid_shape) - 1) / 2.0), 1.0]
        return FoundKidneys(
            labels=kidneys,
            mask=mask,
            findings=(*kidneys.findings, *field_of_view_findings(kidneys)),
            midline_x_mm=float(centre[0]),
            facts={
                "source": "automatic",
                "label_set": "totalsegmentator",
                "algorithm": _NAME,
                "algorithm_version": number,
            },
        )


def _version() -> str:
    try:
        return version(_NAME)
    except PackageNotFoundError:
        return ""
