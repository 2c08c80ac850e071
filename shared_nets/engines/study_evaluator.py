"""An evaluator that goes on when one study is refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from shared_nets.refusals import InputRefused, refusal_behind

logger = logging.getLogger(__name__)

REFUSAL_KEY = "refusal"


def keep_as_list(items: Sequence[Any]) -> list[Any]:
    """Collate nothing: studies differ in what they carry beside their tensors."""
    return list(items)


class StudyEvaluator(SupervisedEvaluator):
    """Evaluate one study at a time; a refused study becomes an outcome, not a crash.

    A study may be refused by preprocessing, or by postprocessing once the network has looked at it.

    Items of the data loader are lists of dictionaries (see :func:`keep_as_list`) as
    :class:`shared_nets.data.studies.StudyDataset` makes them. After every iteration
    ``engine.state.output`` is a list with one dictionary: the item with ``pred`` and what the
    postprocessing added, or ``{"study_id", "refusal"}``.

    Args:
        extra_keys: keyword of ``network.forward`` → key of the item that is passed to it; a key that an item
            lacks is left out, so that the network's default holds.
        label_key: key of the target, where there is one.
        kwargs: as for :class:`monai.engines.SupervisedEvaluator`.
    """

    def __init__(
        self, *, extra_keys: Mapping[str, str] | None = None, label_key: str = "label", **kwargs: Any
    ) -> None:
        super().__init__(decollate=False, **kwargs)
        self.extra_keys = dict(extra_keys or {})
        self.label_key = label_key

    def _iteration(self, engine: SupervisedEvaluator, batchdata: Any) -> Any:
        (item,) = batchdata
        engine.state.batch = [item]
        if isinstance(item.get(REFUSAL_KEY), InputRefused):
            engine.state.output = [{"study_id": item["study_id"], REFUSAL_KEY: item[REFUSAL_KEY]}]
            return engine.state.output
        device = engine.state.device
        image = torch.as_tensor(item[Keys.IMAGE])[None].to(device)
        extra = {
            name: torch.as_tensor(item[key])[None].to(device)
            for name, key in self.extra_keys.items()
            if item.get(key) is not None
        }
        with engine.mode(engine.network):
            pred = engine.inferer(image, engine.network, **extra)
        output = {Keys.PRED: pred[0], "study_id": item["study_id"]}
        if item.get(self.label_key) is not None:
            output[Keys.LABEL] = item[self.label_key]
        engine.state.output = [output]
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        try:
            engine.fire_event(IterationEvents.MODEL_COMPLETED)  # postprocessing
        except Exception as error:
            refusal = refusal_behind(error)
            if refusal is None:
                raise
            logger.warning("%s is refused: %s", item["study_id"], refusal)
            engine.state.output = [{"study_id": item["study_id"], REFUSAL_KEY: refusal}]
        return engine.state.output
