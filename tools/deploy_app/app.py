"""The application and its one operator; to be imported after :func:`tools.deploy_app.sdk.import_sdk`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Fragment, Operator, OperatorSpec

from shared_nets.runtime.carried_code import module_of, open_bundle
from shared_nets.types import StudyOutcome

logger = logging.getLogger(__name__)


class BundleOperator(Operator):
    """Run a bundle on one study and write the files of its result, a PDF among them.

    It has no ports: the bundle's readers are given paths, because what comes in through the SDK's own readers
    has lost what they would refuse, and the bundle's writers write what goes out.

    Args:
        fragment: the application.
        bundle_root: folder of the bundle.
        study: item with ``study_id`` and what the bundle reads.
        output_dir: gets a folder of the study's name.
        overrides: values that replace top-level entries of the bundle's configuration.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        bundle_root: Path,
        study: Mapping[str, Any],
        output_dir: Path,
        overrides: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        self._bundle_root, self._study, self._output_dir = bundle_root, study, output_dir
        self._overrides = overrides
        self.outcome: StudyOutcome | None = None
        self.error: Exception | None = None
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare nothing."""

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Run; what goes wrong is kept for the caller, as the SDK would log it with its text."""
        try:
            runtime = open_bundle(self._bundle_root, **self._overrides)
            results = runtime.content("study_results")
            results.forms = (*results.forms, *_pdf_form(runtime))
            (self.outcome,) = runtime.run([self._study], output_dir=self._output_dir)
        except Exception as error:
            self.error = error


class BundleApp(Application):
    """One bundle on one study.

    Args:
        parts: arguments of :class:`BundleOperator`.
    """

    def __init__(self, **parts: Any) -> None:
        self._parts = parts
        self.operator: BundleOperator | None = None
        super().__init__()

    def compose(self) -> None:
        """Make the operator, which runs once."""
        self.operator = BundleOperator(self, CountCondition(self, 1), name="bundle", **self._parts)
        self.add_operator(self.operator)

    def run_study(self) -> StudyOutcome:
        """Run the bundle.

        Returns:
            A result with its files, or a refusal.

        Raises:
            InputRefused: packages or weights are not those of the bundle.
        """
        self.run()
        if self.operator is None or (self.operator.outcome is None and self.operator.error is None):
            raise RuntimeError("the SDK did not run the operator.")
        if self.operator.error is not None:
            raise self.operator.error
        assert self.operator.outcome is not None
        return self.operator.outcome


def _pdf_form(runtime: Any) -> list[Any]:
    """Give the form that writes the PDF, by the bundle's own code; a bundle of an older release has none."""
    try:
        return [module_of(runtime, "handlers.pdf_form").Pdf()]
    except ModuleNotFoundError:
        logger.warning("%s carries code that writes no PDF yet.", runtime.root.name)
        return []
