"""The TabPFN embedder: no leak of a row's own target, equal bytes, no network, useful predictions."""

from __future__ import annotations

import copy
import pickle
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from shared_nets.nets.embedding_cache import EmbeddingCache
from shared_nets.nets.tabpfn_context import ClinicalContext, assign_folds, id_digest
from shared_nets.nets.tabpfn_embedder import TabPFNEmbedder
from shared_nets.nets.tabpfn_small import new_criterion, new_network, save_checkpoint
from shared_nets.refusals import InputRefused

SHIPPED = Path(__file__).parents[2] / "bundles/ckd_staging_classification/models/tabpfn_small.ckpt"
NUM_ROWS, NUM_FEATURES = 30, 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with random weights; also where the architecture starts at zero."""
    torch.manual_seed(0)
    network = new_network(embed_dim=16, depth=2, num_heads=2, num_buckets=10)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.3)
    path = tmp_path_factory.mktemp("tabpfn") / "tiny.ckpt"
    save_checkpoint(network, new_criterion(torch.linspace(-3.0, 3.0, 11)), path)
    return path


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Thirty people: two laboratory values, sex, a value that is often missing, and one nobody has."""
    random = np.random.default_rng(7)
    features = random.normal(size=(NUM_ROWS, NUM_FEATURES))
    features[:, 2] = features[:, 2] > 0
    features[::3, 3] = np.nan
    features[:, 4] = np.nan
    targets = features[:, 0] + 0.1 * random.normal(size=NUM_ROWS)
    return features, targets, [f"person-{i}" for i in range(NUM_ROWS)]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("something tried to reach the network")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)


def test_a_rows_own_target_cannot_move_its_embedding(checkpoint, table):
    features, targets, ids = table
    changed = targets.copy()
    changed[4] += 100.0
    before, after = (
        TabPFNEmbedder(checkpoint=checkpoint).fit(features, y, ids=ids) for y in (targets, changed)
    )
    folds = before.context.folds
    assert (after.context.folds == folds).all()
    moved = (before.embed(features, ids=ids) != after.embed(features, ids=ids)).any(axis=1)
    assert not moved[folds == folds[4]].any()  # its own fold, row 4 among them, to the last bit
    assert moved[folds != folds[4]].all()  # everyone else reads row 4


def test_out_of_fold_embeddings_do_not_move_with_their_own_target(checkpoint, table):
    features, targets, _ = table
    changed = targets.copy()
    changed[11] = -50.0
    embedder = TabPFNEmbedder(checkpoint=checkpoint)
    before = embedder.embed_out_of_fold(features, targets)
    after = embedder.embed_out_of_fold(features, changed)
    assert before[11].tobytes() == after[11].tobytes()
    assert (before != after).any()


def test_a_known_row_without_its_id_does_read_its_own_target(checkpoint, table):
    features, targets, ids = table
    embedder = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets, ids=ids)
    assert (embedder.embed(features[:1]) != embedder.embed(features[:1], ids=ids[:1])).any()


def test_rows_of_one_group_never_read_each_other(checkpoint, table):
    features, targets, ids = table
    groups = [i // 2 for i in range(NUM_ROWS)]
    changed = targets.copy()
    changed[0] += 9.0
    before, after = (
        TabPFNEmbedder(checkpoint=checkpoint)
        .fit(features, y, ids=ids, groups=groups)
        .embed(features, ids=ids)
        for y in (targets, changed)
    )
    assert (before[:2] == after[:2]).all()


@pytest.mark.parametrize("num_estimators", [pytest.param(1, id="alone"), pytest.param(3, id="ensemble")])
def test_two_embedders_give_the_same_bytes(checkpoint, table, num_estimators):
    features, targets, _ = table
    first, second = (
        TabPFNEmbedder(checkpoint=checkpoint, num_estimators=num_estimators)
        .fit(features, targets)
        .embed(features)
        for _ in range(2)
    )
    assert first.shape == (NUM_ROWS, 16)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert first.tobytes() == second.tobytes()


def test_a_checkpoint_in_the_first_public_layout_gets_that_layouts_preprocessing(checkpoint, table, tmp_path):
    features, targets, ids = table
    content = torch.load(checkpoint, weights_only=True)
    public = tmp_path / "tabpfn-v2-regressor.ckpt"
    torch.save({"state_dict": content["state_dict"], "config": content["config"]}, public)
    changed = targets.copy()
    changed[4] += 100.0
    first, again, other = (
        TabPFNEmbedder(checkpoint=public, num_estimators=2)
        .fit(features, y, ids=ids)
        .embed(features[:6], ids=ids[:6])
        for y in (targets, targets, changed)
    )
    assert first.shape == (6, 16)
    assert np.isfinite(first).all()
    assert first.tobytes() == again.tobytes()
    assert first[4].tobytes() == other[4].tobytes()


def test_an_embedding_does_not_depend_on_the_other_rows_of_the_call(checkpoint, table):
    features, targets, _ = table
    together = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets).embed(features[:6])
    alone = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets)
    assert all((alone.embed(features[i : i + 1])[0] == together[i]).all() for i in (5, 0, 3))


def test_columns_that_never_change_in_the_context_are_left_out(checkpoint, table):
    features, targets, _ = table
    embedder = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets)
    row = features[:1].copy()
    row[0, 4] = 1.0e6
    assert (embedder.embed(row) == embedder.embed(features[:1])).all()


def test_a_kept_row_is_a_hundred_times_faster(checkpoint, table):
    features, targets, _ = table
    embedder = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets)
    embedder.embed(features[:1])
    started = time.perf_counter()
    embedder.embed(features[1:6])
    middle = time.perf_counter()
    embedder.embed(features[1:6])
    assert time.perf_counter() - middle < (middle - started) / 100


def test_embeddings_on_disk_spare_the_network(checkpoint, table, tmp_path, monkeypatch):
    features, targets, _ = table
    first = TabPFNEmbedder(checkpoint=checkpoint, cache_dir=tmp_path).fit(features, targets).embed(features)
    later = TabPFNEmbedder(checkpoint=checkpoint, cache_dir=tmp_path).fit(features, targets)
    monkeypatch.setattr(later, "_load", lambda: pytest.fail("the network was loaded"))
    assert later.embed(features).tobytes() == first.tobytes()


def test_another_context_or_checkpoint_setting_does_not_find_the_kept_row(checkpoint, table, tmp_path):
    features, targets, _ = table
    TabPFNEmbedder(checkpoint=checkpoint, cache_dir=tmp_path).fit(features, targets).embed(features[:1])
    for settings, y in (
        ({"random_state": 1}, targets),
        ({"num_estimators": 2}, targets),
        ({}, targets[::-1]),
    ):
        TabPFNEmbedder(checkpoint=checkpoint, cache_dir=tmp_path, **settings).fit(features, y).embed(
            features[:1]
        )
    assert len(list(tmp_path.glob("*.npy"))) == 4


def test_a_damaged_kept_embedding_is_computed_anew(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put("key", np.ones(3, dtype=np.float32))
    assert EmbeddingCache(tmp_path).get("key").tolist() == [1.0, 1.0, 1.0]
    (tmp_path / "key.npy").write_bytes(b"\x93NUMPY")
    assert EmbeddingCache(tmp_path).get("key") is None


@pytest.mark.usefixtures("no_network")
def test_nothing_reaches_for_the_network(checkpoint, table):
    features, targets, ids = table
    embedder = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets, ids=ids)
    embedder.embed(features[:2], ids=ids[:2])
    embedder.predict(features[:2])


@pytest.mark.usefixtures("no_network")
def test_a_missing_checkpoint_is_refused_rather_than_downloaded(tmp_path):
    with pytest.raises(InputRefused, match="INPUT_NOT_FOUND") as refusal:
        TabPFNEmbedder(checkpoint=tmp_path / "tabpfn-v2-regressor.ckpt")
    assert "nothing is downloaded" in refusal.value.remedy


def test_a_missing_package_is_refused_with_what_to_install(checkpoint, table, monkeypatch):
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name}")

    monkeypatch.setattr("shared_nets.nets.tabpfn_embedder.importlib.import_module", fail)
    embedder = TabPFNEmbedder(checkpoint=checkpoint).fit(*table[:2])
    with pytest.raises(InputRefused, match=r"PACKAGES_MISMATCH.*pip install tabpfn"):
        embedder.embed(table[0])


def test_a_copy_carries_no_network_fits_anew_and_agrees(checkpoint, table):
    features, targets, ids = table
    embedder = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets, ids=ids)
    expected = embedder.embed(features[:3], ids=ids[:3])
    assert len(pickle.dumps(embedder)) < 50_000
    other = copy.deepcopy(embedder)
    other._cache = EmbeddingCache(None)
    assert (other.embed(features[:3], ids=ids[:3]) == expected).all()


def test_a_context_file_is_read_at_first_use_and_names_the_columns(checkpoint, table, tmp_path):
    features, targets, ids = table
    fitted = TabPFNEmbedder(checkpoint=checkpoint).fit(features, targets, ids=ids)
    path = tmp_path / "context.npz"
    embedder = TabPFNEmbedder(checkpoint=checkpoint, context=path)
    _context(features, targets, ids, fitted.context.folds).save(path)
    assert embedder.feature_names == ("age", "bun", "is_female", "bmi", "phosphate")
    assert (embedder.embed(features, ids=ids) == fitted.embed(features, ids=ids)).all()


def test_a_context_file_keeps_everything_but_the_ids(table, tmp_path):
    features, targets, ids = table
    folds = assign_folds(ids, num_folds=5, random_state=0)
    context = _context(features, targets, ids, folds)
    context.save(tmp_path / "a.npz")
    context.save(tmp_path / "b.npz")
    content = (tmp_path / "a.npz").read_bytes()
    assert content == (tmp_path / "b.npz").read_bytes()
    read = ClinicalContext.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.features, features)
    np.testing.assert_array_equal(read.targets, targets)
    np.testing.assert_array_equal(read.folds, folds)
    assert (read.target_name, read.origin, read.licence) == ("ln(creatinine in mg/dL)", "made up", "CC0-1.0")
    assert read.id_digests == tuple(id_digest(i) for i in ids)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert "person-3" not in str({key: file[key] for key in file.files})


@pytest.mark.parametrize("kept_bytes", [pytest.param(0, id="empty"), pytest.param(700, id="cut short")])
def test_a_damaged_context_file_is_refused(checkpoint, table, tmp_path, kept_bytes):
    features, targets, ids = table
    path = tmp_path / "context.npz"
    _context(features, targets, ids, assign_folds(ids, num_folds=5, random_state=0)).save(path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(InputRefused, match=r"INPUT_UNREADABLE.*build_context"):
        TabPFNEmbedder(checkpoint=checkpoint, context=path).embed(features)
    with pytest.raises(InputRefused, match="INPUT_NOT_FOUND"):
        ClinicalContext.load(tmp_path / "absent.npz")


def test_folds_are_even_and_follow_the_name_not_the_place():
    names = [f"n{i}" for i in range(23)]
    folds = assign_folds(names, num_folds=5, random_state=0)
    assert sorted(np.bincount(folds).tolist()) == [4, 4, 5, 5, 5]
    assert assign_folds(names[::-1], num_folds=5, random_state=0).tolist() == folds[::-1].tolist()
    assert assign_folds(names, num_folds=5, random_state=1).tolist() != folds.tolist()


def test_wrong_input_is_named(checkpoint, table):
    features, targets, ids = table
    embedder = TabPFNEmbedder(checkpoint=checkpoint)
    with pytest.raises(RuntimeError, match="context must be given, or fit must be called"):
        embedder.embed(features)
    with pytest.raises(ValueError, match="ids must be one a row and all different"):
        embedder.fit(features, targets, ids=["same"] * NUM_ROWS, groups=range(NUM_ROWS))
    with pytest.raises(ValueError, match=r"members must be at least num_folds=5 different ones, got 3"):
        embedder.fit(features[:3], targets[:3])
    embedder.fit(features, targets, ids=ids)
    with pytest.raises(ValueError, match=r"features must be \(M, 5\), got \(30, 4\)"):
        embedder.embed(features[:, :4])
    with pytest.raises(ValueError, match="finite or NaN"):
        embedder.embed(np.full((1, 5), np.inf))
    with pytest.raises(ValueError, match="ids must be one a row, got 1 for 2 rows"):
        embedder.embed(features[:2], ids=["a"])
    with pytest.raises(ValueError, match="must vary over the context"):
        embedder.fit(features, np.ones(NUM_ROWS)).embed(features[:1])


def test_no_rows_give_no_embeddings(checkpoint, table):
    embedder = TabPFNEmbedder(checkpoint=checkpoint).fit(*table[:2])
    assert embedder.embed(np.empty((0, NUM_FEATURES))).shape == (0, 16)


def test_the_shipped_checkpoint_predicts_and_separates_people():
    random = np.random.default_rng(3)
    features = random.normal(size=(130, 6))
    features[random.random(features.shape) < 0.05] = np.nan
    clean = features[:, 0] - 0.7 * np.nan_to_num(features[:, 1])
    targets = np.nan_to_num(clean) + 0.2 * random.normal(size=130) + 4.0
    embedder = TabPFNEmbedder(checkpoint=SHIPPED).fit(features[:100], targets[:100])
    predicted = embedder.predict(features[100:])
    error, spread = np.mean((predicted - targets[100:]) ** 2), targets[100:].var()
    assert error < 0.3 * spread
    low, middle, high = embedder.predict_quantiles(features[100:], [0.1, 0.5, 0.9]).T
    assert (low < middle).all()
    assert (middle < high).all()
    inside = np.mean((low <= targets[100:]) & (targets[100:] <= high))
    assert 0.6 <= inside <= 1.0  # 80 % are meant to lie inside; 30 rows vary by about ± 15 %
    embedded = embedder.embed(features[100:])
    assert embedded.shape == (30, embedder.embed_dim)
    # The prediction can be read off the embedding by a straight line.
    design = np.c_[embedded[:, np.argsort(-embedded.std(axis=0))[:8]], np.ones(30)]
    fitted = design @ np.linalg.lstsq(design, predicted, rcond=None)[0]
    assert np.mean((fitted - predicted) ** 2) < 0.1 * predicted.var()


def _context(features: np.ndarray, targets: np.ndarray, ids: list[str], folds: np.ndarray) -> ClinicalContext:
    return ClinicalContext(
        feature_names=("age", "bun", "is_female", "bmi", "phosphate"),
        features=features,
        targets=targets,
        folds=folds,
        id_digests=tuple(id_digest(i) for i in ids),
        target_name="ln(creatinine in mg/dL)",
        origin="made up",
        licence="CC0-1.0",
    )
