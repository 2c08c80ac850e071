"""Clinical rows → embeddings, by a TabPFN regressor that reads them against a context of known people.

The only file that imports ``tabpfn``, at first use and with every way to the network closed. Takes any
TabPFN v2 regressor checkpoint from a local path: the public one, or the small one trained here.

Shape letters: N context rows, M query rows, F features, E embedding, K estimators.

Reference:
    N. Hollmann et al., "Accurate predictions on small data with a tabular foundation model", Nature 2025.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
from collections.abc import Callable, Hashable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from shared_nets.nets.embedding_cache import EmbeddingCache
from shared_nets.nets.tabpfn_context import ClinicalContext, assign_folds, id_digest
from shared_nets.refusals import InputRefused

FloatArray = npt.NDArray[np.float64]
EmbeddingArray = npt.NDArray[np.float32]
_EVERYONE = -1


class TabPFNEmbedder:
    """Embed clinical rows with one fit that is reused, and keep what was embedded.

    A row that is itself in the context is embedded by the rows of the other folds, so that its own target
    cannot reach its embedding. Rows go through the network one by one: an embedding depends on the context
    and the row, never on its neighbours in a call.

    Args:
        checkpoint: a TabPFN v2 regressor checkpoint, ``.ckpt`` or ``.safetensors``.
        context: a file made by ``tools/build_context.py``, read at first use; without one call :meth:`fit`.
        num_folds: folds for :meth:`fit` and :meth:`embed_out_of_fold`; a context file brings its own.
        num_estimators: members of TabPFN's ensemble; their embeddings are averaged.
        random_state: seed of TabPFN's preprocessing and of the folds.
        cache_dir: folder that keeps embeddings between runs; ``None`` keeps them in memory only.

    Raises:
        ValueError: a count is too small.
        InputRefused: the checkpoint does not exist (``INPUT_NOT_FOUND``).
    """

    def __init__(
        self,
        *,
        checkpoint: str | Path,
        context: str | Path | None = None,
        num_folds: int = 5,
        num_estimators: int = 1,
        random_state: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        if num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, got {num_folds}.")
        if num_estimators < 1:
            raise ValueError(f"num_estimators must be at least 1, got {num_estimators}.")
        self.checkpoint = Path(checkpoint)
        if not self.checkpoint.is_file():
            raise InputRefused(
                "INPUT_NOT_FOUND",
                f"There is no TabPFN checkpoint {self.checkpoint.name}.",
                "Give the path of a TabPFN v2 regressor checkpoint; nothing is downloaded.",
            )
        self.context_path = None if context is None else Path(context)
        self.num_folds = num_folds
        self.num_estimators = num_estimators
        self.random_state = random_state
        self._context: ClinicalContext | None = None
        self._fold_of_id: dict[str, int] = {}
        self._readers: dict[int, _Reader] = {}
        self._specs: Any = None
        self._recipe = b""
        self._cache = EmbeddingCache(cache_dir)

    @property
    def embed_dim(self) -> int:
        """Length E of an embedding."""
        return int(self._load().model.embedding_dim)

    @property
    def context(self) -> ClinicalContext:
        """The context rows.

        Raises:
            RuntimeError: there is neither a context file nor a fit.
        """
        if self._context is not None:
            return self._context
        if self.context_path is None:
            raise RuntimeError("context must be given, or fit must be called before embed, got neither.")
        return self._use(ClinicalContext.load(self.context_path))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F columns, in the order that rows must have."""
        return self.context.feature_names

    def fit(
        self,
        features: npt.ArrayLike,
        targets: npt.ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> Self:
        """Take these rows as the context; the networks run at the first embedding.

        Args:
            features: ``(N, F)``, NaN where missing.
            targets: ``(N,)``, for example log creatinine.
            ids: one a row, all different; a row with a known id is later embedded out of fold.
            groups: rows of one group share a fold (visits of one patient).

        Returns:
            The embedder itself.

        Raises:
            ValueError: shapes do not match, a value is infinite, or there are fewer rows than folds.
        """
        self._use(self._new_context(features, targets, ids=ids, groups=groups))
        return self

    def embed(self, features: npt.ArrayLike, *, ids: Sequence[str] | None = None) -> EmbeddingArray:
        """Embed rows; those whose id is in the context by the folds they are not in.

        Args:
            features: ``(M, F)``, columns as :attr:`feature_names`, NaN where missing.
            ids: one a row.

        Returns:
            ``(M, E)`` float32; the same row and context give the same bytes.

        Raises:
            ValueError: the shape is wrong or a value is infinite.
            InputRefused: the context file is missing or unreadable.
        """
        rows, readers = self._routed(features, ids)
        return self._embedded(rows, readers)

    def embed_out_of_fold(
        self,
        features: npt.ArrayLike,
        targets: npt.ArrayLike,
        *,
        groups: Sequence[Hashable] | None = None,
    ) -> EmbeddingArray:
        """Embed each row by a context of the rows outside its fold; the fit stays as it is.

        Args:
            features: ``(N, F)``, NaN where missing.
            targets: ``(N,)``.
            groups: rows of one group share a fold.

        Returns:
            ``(N, E)`` float32; row ``i`` does not change when target ``i`` changes.

        Raises:
            ValueError: as for :meth:`fit`.
        """
        context = self._new_context(features, targets, ids=None, groups=groups)
        readers = {fold: self._new_reader(context, fold) for fold in np.unique(context.folds).tolist()}
        return self._embedded(context.features, [readers[fold] for fold in context.folds.tolist()])

    def predict(self, features: npt.ArrayLike, *, ids: Sequence[str] | None = None) -> FloatArray:
        """Predict the target itself, ``(M,)`` in its own unit; rows and ids as for :meth:`embed`."""
        rows, readers = self._routed(features, ids)
        return np.array([reader.predict(row)[0] for row, reader in zip(rows, readers, strict=True)])

    def predict_quantiles(
        self, features: npt.ArrayLike, quantiles: Sequence[float], *, ids: Sequence[str] | None = None
    ) -> FloatArray:
        """Predict quantiles of the target, ``(M, len(quantiles))``; rows and ids as for :meth:`embed`."""
        rows, readers = self._routed(features, ids)
        wanted = {"output_type": "quantiles", "quantiles": list(quantiles)}
        predicted = [reader.predict(row, **wanted) for row, reader in zip(rows, readers, strict=True)]
        return np.array(predicted).reshape(len(rows), len(quantiles))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the networks out of a pickle; a worker process loads and fits its own."""
        return {**self.__dict__, "_readers": {}, "_specs": None}

    def _use(self, context: ClinicalContext) -> ClinicalContext:
        self._context = context
        self._readers = {}
        self._fold_of_id = dict(zip(context.id_digests, context.folds.tolist(), strict=False))
        return context

    def _new_context(
        self,
        features: npt.ArrayLike,
        targets: npt.ArrayLike,
        *,
        ids: Sequence[str] | None,
        groups: Sequence[Hashable] | None,
    ) -> ClinicalContext:
        values, wanted = np.array(features, dtype=np.float64), np.array(targets, dtype=np.float64)
        if values.ndim != 2 or wanted.ndim != 1:
            raise ValueError(
                f"features must be (N, F) and targets (N,), got {values.shape} and {wanted.shape}."
            )
        members: Sequence[Hashable] = (
            groups if groups is not None else ids if ids is not None else range(len(wanted))
        )
        return ClinicalContext(
            feature_names=tuple(f"feature_{i}" for i in range(values.shape[1])),
            features=_canonical(values),
            targets=wanted,
            folds=assign_folds(members, num_folds=self.num_folds, random_state=self.random_state),
            id_digests=() if ids is None else tuple(id_digest(i) for i in ids),
        )

    def _routed(self, features: npt.ArrayLike, ids: Sequence[str] | None) -> tuple[FloatArray, list[_Reader]]:
        context = self.context
        rows = np.array(features, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(context.feature_names):
            raise ValueError(f"features must be (M, {len(context.feature_names)}), got {rows.shape}.")
        if np.isinf(rows).any():
            raise ValueError("features must be finite or NaN, got infinite values.")
        if ids is not None and len(ids) != len(rows):
            raise ValueError(f"ids must be one a row, got {len(ids)} for {len(rows)} rows.")
        folds = (
            [_EVERYONE] * len(rows)
            if ids is None
            else [self._fold_of_id.get(id_digest(i), _EVERYONE) for i in ids]
        )
        for fold in set(folds) - set(self._readers):
            self._readers[fold] = self._new_reader(context, fold)
        return _canonical(rows), [self._readers[fold] for fold in folds]

    def _embedded(self, rows: FloatArray, readers: Sequence[_Reader]) -> EmbeddingArray:
        embedded = []
        for row, reader in zip(rows, readers, strict=True):
            key = reader.key(row)
            known = self._cache.get(key)
            if known is None:
                known = reader.embed(row)
                self._cache.put(key, known)
            embedded.append(known)
        return np.stack(embedded) if embedded else np.empty((0, self.embed_dim), dtype=np.float32)

    def _load(self) -> Any:
        """Load the network once; every fit shares it."""
        if self._specs is None:
            loading = tabpfn_module("tabpfn.model_loading")
            models, criterion, configs, inference = loading.load_model_criterion_config(
                model_path=self.checkpoint,
                check_bar_distribution_criterion=True,
                estimator_type="regressor",
                version="v2",
                download_if_not_exists=False,
            )
            self._specs = tabpfn_module("tabpfn").ModelSpecs(models[0], configs[0], inference, criterion)
        return self._specs

    def _new_reader(self, context: ClinicalContext, fold: int) -> _Reader:
        """Prepare to read against every row outside ``fold``; the network runs when it has to."""
        if not self._recipe:
            settings = f"{self.num_estimators} {self.random_state} {version('tabpfn')} {torch.__version__}"
            self._recipe = hashlib.sha256(self.checkpoint.read_bytes() + settings.encode()).digest()
        kept = context.folds != fold
        features, targets = context.features[kept], context.targets[kept]
        # A column that never changes says nothing about a row and has no scale.
        columns = np.array([len(np.unique(c[~np.isnan(c)])) > 1 for c in features.T], dtype=bool)
        if not columns.any() or np.ptp(targets) == 0:
            raise ValueError("features and targets must vary over the context, got constant ones.")
        digest = hashlib.sha256(self._recipe + repr(features.shape).encode())
        digest.update(features.tobytes() + targets.tobytes())
        return _Reader(
            functools.partial(self._fitted, features[:, columns], targets), columns, digest.digest()
        )

    def _fitted(self, features: FloatArray, targets: FloatArray) -> Any:
        """Run the network over the context once and keep its keys and values."""
        regressor = tabpfn_module("tabpfn").TabPFNRegressor(
            model_path=self._load(),
            n_estimators=self.num_estimators,
            device="cpu",
            fit_mode="fit_with_cache",
            inference_precision=torch.float32,
            ignore_pretraining_limits=True,
            random_state=self.random_state,
        )
        return regressor.fit(features, targets)


class _Reader:
    """One context: how to fit to it, the columns it uses, and a hash of all its embeddings depend on."""

    def __init__(self, fit: Callable[[], Any], columns: npt.NDArray[np.bool_], digest: bytes) -> None:
        self._fit = fit
        self._columns = columns
        self._digest = digest

    @functools.cached_property
    def _regressor(self) -> Any:
        return self._fit()

    def key(self, row: FloatArray) -> str:
        return hashlib.sha256(self._digest + row[self._columns].tobytes()).hexdigest()

    def predict(self, row: FloatArray, **output: Any) -> Any:
        return self._regressor.predict(row[self._columns][None], **output)

    def embed(self, row: FloatArray) -> EmbeddingArray:
        members = self._regressor.get_embeddings(row[self._columns][None])  # (K, E): one row loses its axis
        return members.reshape(len(members), -1).mean(axis=0, dtype=np.float64).astype(np.float32)  # (E,)


def _canonical(values: FloatArray) -> FloatArray:
    """Leave one kind of NaN and one kind of zero, so that equal values have equal bytes."""
    return np.where(np.isnan(values), np.nan, values + 0.0)


def tabpfn_module(name: str) -> ModuleType:
    """Import a module of the package with its ways to the network closed.

    Version 9.2.0 sends no telemetry and downloads only a checkpoint that is absent, which this file never
    asks for; the variables hold for its dependencies and for other versions.

    Raises:
        InputRefused: the package is not installed (``PACKAGES_MISMATCH``).
    """
    for variable in (
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "TABPFN_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
    ):
        os.environ.setdefault(variable, "1")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputRefused(
            "PACKAGES_MISMATCH",
            f"The package tabpfn cannot be imported: {error}",
            "Run: pip install tabpfn==9.2.0",
        ) from error
