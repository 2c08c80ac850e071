"""Kidneys for a study that comes without a mask: what draws them, in the same process, on the same voxels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from shared_nets.refusals import InputRefused
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.carried_code import open_bundle, refusals_of_carried_code
from shared_nets.runtime.checks import file_sha256
from shared_nets.transforms.find_kidneys import FoundKidneys

logger = logging.getLogger(__name__)


class KidneySegmenter:
    """Draw kidneys by the kidney segmentation bundle; loaded when the first study needs it.

    Args:
        bundle_root: folder of that bundle.
        device: where its network runs.
        overrides: values that replace top-level entries of its configuration.
    """

    def __init__(self, bundle_root: str | Path, device: torch.device | str = "cpu", **overrides: Any) -> None:
        self.bundle_root = Path(bundle_root)
        self.device = torch.device(device)
        self.overrides = overrides
        self._runtime: BundleRuntime | None = None

    def __call__(self, ct: MetaTensor) -> FoundKidneys:
        """Find the kidneys of a CT ``(1, I, J, K)`` HU.

        Raises:
            InputRefused: ``MASK_MISSING`` where the bundle is not there; what the bundle refuses.
        """
        with refusals_of_carried_code():
            return self._find(ct)

    def _find(self, ct: MetaTensor) -> FoundKidneys:
        runtime = self._loaded()
        data: dict[Any, Any] = {"image": ct}
        preprocessing: Compose = runtime.content("preprocessing")
        for transform in preprocessing.transforms:
            if not isinstance(transform, LoadImaged):
                data = transform(data)
        network = runtime.content("network").eval()
        with torch.no_grad():
            logits = runtime.content("inferer")(data["image"][None].to(self.device), network)
        data = runtime.content("postprocessing")({**data, "pred": logits[0]})
        found: FoundKidneys = data["found_kidneys"]
        name, version = runtime.name_and_version
        facts = {
            "source": "automatic",
            "label_set": "right_left",
            "algorithm": name,
            "algorithm_version": version,
            "weights_sha256": file_sha256(runtime.content("ckpt_path")),
        }
        mask = replace(found.mask, algorithm_name=name, algorithm_version=version)
        warnings = tuple(dict.fromkeys((*found.findings, *data["result"].warnings)))
        return replace(found, mask=mask, findings=warnings, facts=facts)

    def _loaded(self) -> BundleRuntime:
        if self._runtime is None:
            if not (self.bundle_root / "configs" / "inference.json").is_file():
                raise InputRefused(
                    "MASK_MISSING",
                    f"No kidney mask was given, and there is no bundle {self.bundle_root.name} to draw one.",
                    "Give a mask of the kidneys, or the folder of the kidney segmentation bundle.",
                )
            logger.info("loading %s to draw kidney masks", self.bundle_root.name)
            self._runtime = open_bundle(self.bundle_root, device=self.device, **self.overrides)
        return self._runtime
