"""Train the kidney segmentation further on masks that people corrected and submitted.

Training starts from the weights in use. Every submitted CT becomes a body that is changed at random, as in
the bundle's own training (:mod:`shared_nets.data.random_bodies`), beside synthetic abdomens and, where the
server has them, the bodies of ``tools.build_kidney_bodies``, so that the network does not forget what it
knew. The result never takes the place of the released weights.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from shared_nets.data.body_changes import LEFT_KIDNEY, RIGHT_KIDNEY
from shared_nets.refusals import InputRefused
from shared_nets.runtime.bundle import BundleRuntime
from shared_nets.runtime.carried_code import open_bundle, refusals_of_carried_code
from shared_nets.runtime.checks import file_sha256, load_weights
from tools.build_kidney_bodies import write_body
from tools.monailabel_app.finished_run import run_and_keep
from tools.monailabel_app.own_weights import OwnWeights
from tools.monailabel_app.submitted_mask import SubmittedMask, read_submitted_mask

logger = logging.getLogger(__name__)

_DATASET = re.compile(
    r"shared_nets(_[0-9a-f]{12})?\.data\.random_bodies\.RandomBodies"
)  # a released bundle names the code that it carries
_SIDES = np.array(
    [0, RIGHT_KIDNEY, LEFT_KIDNEY, RIGHT_KIDNEY], dtype=np.uint8
)  # an unknown side is kidney too
#: What a request may set, and its defaults: minutes on two cores, and a tenth of the first learning rate.
DEFAULTS: dict[str, int | float] = {"max_epochs": 5, "epoch_length": 40, "learning_rate": 0.0003, "seed": 0}


def learns_from_masks(bundle_root: Path) -> bool:
    """Say whether a bundle is trained on CTs with kidney masks, as :class:`KidneyTraining` does it."""
    path = bundle_root / "configs" / "train.json"
    if not path.is_file():
        return False
    dataset = json.loads(path.read_text(encoding="utf-8")).get("train", {}).get("dataset")
    return isinstance(dataset, dict) and _DATASET.fullmatch(str(dataset.get("_target_"))) is not None


class KidneyTraining(TrainTask):
    """Train on what was submitted.

    Args:
        bundle_root: folder of the bundle.
        own_weights: where the trained weights go.
        bodies: folder of ``tools.build_kidney_bodies`` whose bodies take part too; ``None`` without one.
    """

    def __init__(self, bundle_root: Path, own_weights: OwnWeights, bodies: Path | None = None) -> None:
        super().__init__(
            "Train further on submitted masks: 1 right kidney, 2 left kidney. Research use only."
        )
        self.bundle_root, self.own_weights, self.bodies = bundle_root, own_weights, bodies

    def config(self) -> dict[str, Any]:
        """Give what a request may set."""
        return dict(DEFAULTS)

    def stats(self) -> dict[str, Any]:
        """Tell of the last training."""
        return self.own_weights.facts()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train.

        Args:
            request: any of :data:`DEFAULTS`.
            datastore: holds the submitted masks, under the tag ``final``.

        Returns:
            How it went: ``labels``, ``dice_before`` and ``dice_after`` on the submitted masks (which the
            network has then seen: a check that it learned, not a figure), and the knobs.

        Raises:
            InputRefused: ``INPUT_EMPTY`` without a submitted mask; what is wrong with one of them;
                ``INPUT_UNREADABLE`` for a knob that is not a positive number.
        """
        knobs = {name: _number(name, request.get(name, default)) for name, default in DEFAULTS.items()}
        submitted = datastore.datalist()
        if not submitted:
            raise InputRefused(
                "INPUT_EMPTY", "No mask was submitted.", "Correct a mask and submit it under the tag final."
            )
        released = self.bundle_root / "models" / "model.pt"
        start = self.own_weights.path if self.own_weights.path.is_file() else released
        with tempfile.TemporaryDirectory() as temporary:
            bodies, output = Path(temporary) / "bodies", Path(temporary) / "output"
            bodies.mkdir()
            if self.bodies is not None:
                for path in self.bodies.glob("*.npz"):
                    shutil.copy(path, bodies)
            for number, pair in enumerate(submitted):
                mask = read_submitted_mask(pair["image"], pair["label"])
                _write_body(bodies / f"body_submitted{number}.npz", pair["image"], mask, Path(temporary))
            before = self._dice(start, submitted)  # also imports the code that a released bundle carries
            with refusals_of_carried_code():
                self._train(start, bodies, output, knobs)
            trained = output / "model.pt"
            facts = {
                "labels": len(submitted),
                "started_from_sha256": file_sha256(start),
                **knobs,
                "dice_before": before,
                "dice_after": self._dice(trained, submitted),
            }
            known = self.own_weights.replace(trained, facts)
        logger.info("trained on %d submitted masks", len(submitted))
        return known

    def _train(self, start: Path, bodies: Path, output: Path, knobs: Mapping[str, Any]) -> None:
        configs = self.bundle_root / "configs"
        workflow = ConfigWorkflow(
            workflow_type="train",
            config_file=str(configs / "train.json"),
            meta_file=str(configs / "metadata.json"),
            logging_file=False,
            bundle_root=str(self.bundle_root),
            dataset_dir=str(bodies),
            output_dir=str(output),
            **knobs,
        )
        workflow.initialize()
        load_weights(workflow.parser.get_parsed_content("network_def"), start)
        workflow.run()
        workflow.finalize()
        set_determinism(None)  # which the configuration set for the whole process

    def _dice(self, weights: Path, submitted: list[dict[str, Any]]) -> float:
        """Mean overlap of the network's kidneys with the submitted ones, at the resolution that it sees."""
        runtime = open_bundle(self.bundle_root, ckpt_path=str(weights))
        return round(float(np.mean([_dice_of(runtime, pair) for pair in submitted])), 4)


def _dice_of(runtime: BundleRuntime, pair: Mapping[str, Any]) -> float:
    truth = read_submitted_mask(pair["image"], pair["label"]).kidneys
    try:
        drawn = run_and_keep(runtime, {"study_id": "submitted", "image": pair["image"]}).study.mask
    except InputRefused:
        drawn = None
    if drawn is None:
        return 0.0  # the network found no kidney at all
    a, b = (mask.whole() > 0 for mask in (truth, drawn))
    return 2.0 * int(np.count_nonzero(a & b)) / int(np.count_nonzero(a) + np.count_nonzero(b))


def _write_body(path: Path, image: str, mask: SubmittedMask, folder: Path) -> None:
    """Write a submitted mask with its CT as a body, under TotalSegmentator's numbers."""
    numbers = nib.Nifti1Image(_SIDES[mask.kidneys.whole()], mask.kidneys.affine)
    labels = folder / "labels.nii.gz"
    nib.save(numbers, labels)
    write_body(path, image, labels)


def _number(name: str, value: Any) -> int | float:
    kind = type(DEFAULTS[name])
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value < 0
        or (value == 0 and name != "seed")
    ):
        raise InputRefused(
            "INPUT_UNREADABLE", f"{name} must be a positive number, got {value!r}.", "Correct the request."
        )
    return kind(value)
