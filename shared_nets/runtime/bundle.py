"""Run one bundle on studies from Python: what MONAI Label, MONAI Deploy and tools call.

The command line ``python -m monai.bundle run`` runs the same evaluator from the same configuration, so that
every door gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from torch.utils.data import DataLoader

from shared_nets.data.studies import StudyDataset
from shared_nets.engines.study_evaluator import keep_as_list
from shared_nets.refusals import refusal_behind
from shared_nets.runtime.checks import prepare_bundle, read_metadata
from shared_nets.types import StudyOutcome


class BundleRuntime:
    """A bundle that is loaded once and run many times.

    Args:
        bundle_root: folder of the bundle.
        overlays: further config files, laid over ``inference.json`` in this order.
        overrides: values that replace top-level entries of the configuration.

    Raises:
        InputRefused: packages or weights are not those of the bundle.
    """

    def __init__(
        self, bundle_root: str | Path, *, overlays: Sequence[str | Path] = (), **overrides: Any
    ) -> None:
        root = self.root = Path(bundle_root).resolve()
        configs = root / "configs"
        self.workflow = ConfigWorkflow(
            workflow_type="infer",
            config_file=[str(configs / "inference.json"), *(str(path) for path in overlays)],
            meta_file=str(configs / "metadata.json"),
            logging_file=False,
            bundle_root=str(root),
            studies=[],
            initialize=[],
            **overrides,
        )
        self.workflow.initialize()
        parser = self.workflow.parser
        prepare_bundle(
            parser.get_parsed_content("network"),
            bundle_root=root,
            ckpt_path=parser.get_parsed_content("ckpt_path"),
            other_files=parser.get_parsed_content("other_files"),
        )
        self._preprocessing = self.content("preprocessing")
        self._evaluator = self.content("evaluator")
        self._results = self.content("study_results")

    def content(self, name: str) -> Any:
        """Give a part of the configuration, built: ``network``, ``preprocessing``, ``inferer`` …

        Raises:
            InputRefused: building it was refused: a calibration of other weights.
        """
        try:
            return self.workflow.parser.get_parsed_content(name)
        except Exception as error:  # MONAI wraps what a component raises
            refusal = refusal_behind(error)
            if refusal is None:
                raise
            raise refusal from None

    @property
    def name_and_version(self) -> tuple[str, str]:
        """What the bundle's metadata call it."""
        metadata = read_metadata(self.root)
        return metadata["name"], metadata["version"]

    def run(
        self, studies: Sequence[Mapping[str, Any]], *, output_dir: str | Path | None = None
    ) -> list[StudyOutcome]:
        """Run the bundle on studies; a refused study is an outcome, and the others go on.

        Args:
            studies: items with ``study_id`` and what the bundle reads (see the bundle's card).
            output_dir: where files are written, one folder a study; without one nothing is written.

        Returns:
            One outcome a study, in their order.
        """
        loader: DataLoader = DataLoader(
            StudyDataset(studies, self._preprocessing), batch_size=1, collate_fn=keep_as_list
        )
        self._results.output_dir = Path(output_dir) if output_dir is not None else None
        self._evaluator.data_loader = loader
        self._evaluator.state.epoch_length = len(loader)
        self._evaluator.run()
        return list(self._results.outcomes)
