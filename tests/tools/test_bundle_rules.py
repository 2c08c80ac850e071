"""Each rule for bundles is seen to fail: a bundle that keeps them all is broken in one place at a time."""

from __future__ import annotations

import json

import pytest
import yaml

from tools.bundle_rules import bundle_folders, bundle_problems, sha256_of
from tools.config_rules import config_problems
from tools.new_bundle import make_bundle

NAME = "liver_ct_segmentation"


@pytest.fixture
def bundle(tmp_path):
    """A bundle that breaks no rule; its weights are a few bytes that nothing loads."""
    folder = make_bundle(NAME, tmp_path / "bundles")
    weights = folder / "models" / "model.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    digest = sha256_of(weights)
    edit_json(folder / "configs/metadata.json", weights={"models/model.pt": {"sha256": digest}})
    card = folder / "docs/README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("none are shipped yet", f"sha256 {digest}"))
    assert bundle_problems(folder) == []
    return folder


def edit_json(path, **changes):
    """Set entries by their path, ``a__b`` for ``a::b``; ``None`` removes one."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(content, indent=4))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        pytest.param("scripts/net.py", "x = 1", "scripts/ must not be in a bundle", id="scripts"),
        pytest.param("net.py", "x = 1", "net.py must not be in a bundle", id="python"),
        pytest.param("docs/look.ipynb", "{}", "docs/look.ipynb must not be in a bundle", id="notebook"),
        pytest.param("LICENSE", "", "LICENSE is empty", id="empty licence"),
        pytest.param("models/model.pt", "other", "the sha256 of models/model.pt must be", id="other weights"),
        pytest.param("models/more.pt", "x", "weights must name models/more.pt", id="unnamed weights"),
        pytest.param("models/model.pt", "x" * 8_000_001, "at most 8000000 bytes, got 8000001", id="large"),
        pytest.param("configs/train.json", "{", "train.json must be readable JSON", id="no JSON"),
        pytest.param(
            "configs/x.json", '{"a": 1, "a": 2}', "must hold each key once, got 'a'", id="key twice"
        ),
        pytest.param("docs/README.md", "# Liver\n", "must have the sections At a glance", id="empty card"),
    ],
)
def test_file_that_breaks_a_rule_is_named(bundle, name, content, problem):
    path = bundle / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    assert any(problem in found for found in bundle_problems(bundle)), bundle_problems(bundle)


@pytest.mark.parametrize(
    "name", ["LICENSE", "docs/data_license.txt", "models/model.pt", "configs/inference.json"]
)
def test_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    assert f"{name} is missing." in bundle_problems(bundle)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param("## Data\n", "## Dataset\n", "must have the sections", id="other section"),
        pytest.param("Research use only. Not", "Not", "must say before its first section", id="status"),
        pytest.param("None yet.", "TODO", "must hold no placeholder, got TODO", id="placeholder"),
        pytest.param("None yet.", "See [it](x.md).", "links to x.md, which is not there", id="dead link"),
        pytest.param("None yet.", "line\n" * 150, "must have at most 150 lines", id="long"),
        pytest.param("sha256 ", "sha256 0", "", id="sha256 with a digit more is still found"),
    ],
)
def test_card_that_breaks_a_rule_is_named(bundle, old, new, problem):
    card = bundle / "docs/README.md"
    card.write_text(card.read_text(encoding="utf-8").replace(old, new))
    found = bundle_problems(bundle)
    assert len(found) == (1 if problem else 0)
    assert problem in "".join(found)


def test_card_with_the_sha256_of_other_weights_is_named(bundle):
    edit_json(bundle / "configs/metadata.json", weights={"models/model.pt": {"sha256": "0" * 64}})
    assert any("must state the sha256 of models/model.pt" in found for found in bundle_problems(bundle))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"authors": None}, "'authors' is a required property", id="schema"),
        pytest.param({"monai_version": "1.0.0"}, "the version of monai must be", id="other version"),
        pytest.param({"required_packages_version__einops": "1"}, "einops must stand in", id="not required"),
        pytest.param({"name": "Liver"}, "name must be that of the folder", id="other name"),
        pytest.param({"exports": None}, "exports must be a list of onnx", id="exports not said"),
        pytest.param({"exports": ["model.ts"]}, "exports must be a list of onnx", id="unknown export"),
        pytest.param({"version": "9.9.9"}, "changelog must say what is new", id="changelog"),
        pytest.param({"network_data_format__outputs": {}}, "must be named pred, got None", id="no pred"),
        pytest.param({"weights": {"models/a.pt": {}}}, "names models/a.pt, which is not there", id="no file"),
    ],
)
def test_metadata_that_break_a_rule_are_named(bundle, changes, problem):
    edit_json(bundle / "configs/metadata.json", **changes)
    assert any(problem in found for found in bundle_problems(bundle)), bundle_problems(bundle)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"knob": "$(lambda: 1)()"}, "knob must not use lambda", id="lambda"),
        pytest.param({"knob": "$__import__('os')"}, "must not use __import__", id="hidden import"),
        pytest.param({"knob": "$import os"}, "knob must not import", id="import"),
        pytest.param(
            {"imports": ["$import os"]}, "imports::0 must import one of", id="import of another module"
        ),
        pytest.param({"knobs": ["$1"] * 26}, "must hold at most 25 expressions, got", id="many expressions"),
        pytest.param({"knob": "https://example.org/x"}, "must not hold a network address", id="address"),
        pytest.param({"knob": "@train#loss"}, "knob must join the parts of a reference with ::", id="hash"),
        pytest.param({"knob#part": 1}, "knob#part must join its parts with ::", id="hash in a key"),
        pytest.param({"knob": "%train.json::loss"}, "must not quote another file", id="macro"),
        pytest.param({"knob": "/opt/data"}, "must not be a path of one machine", id="machine path"),
        pytest.param({"knob": "$" + "1 + " * 30 + "1"}, "must fit 110 columns", id="long expression"),
        pytest.param(
            {"network_def___comment": "x"}, "network_def::_comment must not start with _", id="comment"
        ),
        pytest.param({"_desc_": None}, "the first key must be _desc_", id="no description"),
        pytest.param({"bundle_root": None}, "", id="a missing key is MONAI's to find"),
        pytest.param(
            {"network_def___target_": "shared_nets.nets.nowhere.Net"},
            "must name a function or class of shared_nets",
            id="unknown target",
        ),
        pytest.param({"network_def___target_": "scripts.Net"}, "must name something that is", id="scripts"),
        pytest.param(
            {"preprocessing__folder": "$@bundle_root + '/x'"}, "must not use bundle_root", id="bundle_root"
        ),
    ],
)
def test_configuration_that_breaks_a_rule_is_named(bundle, changes, problem):
    edit_json(bundle / "configs/inference.json", **changes)
    found = bundle_problems(bundle)
    assert len(found) == (1 if problem else 0), found
    assert problem in "".join(found)


@pytest.mark.parametrize(
    ("item", "is_allowed"),
    [
        pytest.param("$monai.utils.set_determinism(@seed)", True, id="a number"),
        pytest.param({"_target_": "torch.nn.ReLU"}, False, id="a component"),
        pytest.param("$@network_def.eval()", False, id="a component by its name"),
        pytest.param("$@train::trainer.run()", False, id="a component inside a section"),
    ],
)
def test_initialize_builds_no_component(bundle, item, is_allowed):
    edit_json(bundle / "configs/train.json", initialize=[item])
    wanted = "train.json: initialize::0 must not build a component; make it an item of run."
    assert bundle_problems(bundle) == ([] if is_allowed else [wanted])


def test_keys_in_another_order_are_named(bundle):
    path = bundle / "configs/inference.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"device": content.pop("device")}, indent=4))
    (found,) = bundle_problems(bundle)
    assert "must have its keys in the order _desc_, imports, bundle_root" in found


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        pytest.param({"_desc_": "Over train.json.", "train::dataloader::shuffle": False}, None, id="good"),
        pytest.param(
            {"_desc_": "Over train.json.", "epochs": 2}, "epochs must exist in train.json", id="typo"
        ),
        pytest.param({"_desc_": "More epochs.", "max_epochs": 2}, "must name its base", id="no base"),
        pytest.param(
            {"_desc_": "Over train.json.", "train::handlers::0::tag_name": "x"},
            "train::handlers::0::tag_name must not address a list item",
            id="list item",
        ),
        pytest.param(
            {"_desc_": "Over inference.json and train.json.", "max_epochs": 2},
            "max_epochs must exist in inference.json",
            id="one of two bases",
        ),
    ],
)
def test_overlay_sets_only_what_its_base_has(bundle, overlay, problem):
    (bundle / "configs/overlay.json").write_text(json.dumps(overlay))
    found = config_problems(bundle / "configs")
    assert len(found) == (1 if problem else 0), found
    assert (problem or "") in "".join(found)


def test_bundles_are_found_without_a_list(bundle):
    make_bundle("heart_ct_segmentation", bundle.parent)
    assert [folder.name for folder in bundle_folders(bundle.parents[1])] == ["heart_ct_segmentation", NAME]


LARGE = {
    "path": "models/large.pt",
    "url": "https://example.org/large.pt",
    "hash_type": "sha256",
    "hash_val": "a" * 64,
}


def large_files(bundle, *entries):
    (bundle / "large_files.yml").write_text(yaml.safe_dump({"large_files": list(entries)}))


def test_weights_that_are_fetched_need_not_be_there(bundle):
    large_files(bundle, LARGE)
    weights = json.loads((bundle / "configs/metadata.json").read_text(encoding="utf-8"))["weights"]
    edit_json(bundle / "configs/metadata.json", weights=weights | {"models/large.pt": {"sha256": "a" * 64}})
    card = bundle / "docs/README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("None yet.", "a" * 12))
    assert bundle_problems(bundle) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({}, "the sha256 of models/large.pt must be aaaa", id="not in metadata"),
        pytest.param({"path": "../large.pt"}, "path must name a file in models/", id="outside"),
        pytest.param(
            {"url": "http://example.org/x"}, "url of models/large.pt must start with", id="plain http"
        ),
        pytest.param({"hash_type": "md5"}, "must have hash_type sha256", id="weak hash"),
        pytest.param({"hash_val": ""}, "must have hash_type sha256", id="no hash"),
    ],
)
def test_large_file_that_breaks_a_rule_is_named(bundle, changes, problem):
    large_files(bundle, LARGE | changes)
    (found,) = bundle_problems(bundle)
    assert problem in found


def test_large_files_without_their_list_are_named(bundle):
    (bundle / "large_files.yml").write_text("models/large.pt\n")
    assert bundle_problems(bundle) == ["large_files.yml must be YAML with the list large_files."]
