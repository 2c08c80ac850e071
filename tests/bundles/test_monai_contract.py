"""Every bundle is what MONAI's own tools expect, and is built without asking a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.bundle.reference_resolver import ReferenceResolver

from tools.check_bundle import SCHEMA
from tools.config_rules import overlay_bases, read_config
from tools.new_bundle import make_bundle

pytestmark = pytest.mark.xdist_group("bundles")  # one process pays for MONAI's imports


def parser_of(bundle: Path, *names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / name) for name in names])
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser["bundle_root"] = str(bundle)
    return parser


def combinations(bundle: Path) -> list[tuple[str, ...]]:
    """Every way in which the configurations of a bundle are run."""
    runs: list[tuple[str, ...]] = [("inference.json",), ("train.json",)]
    for path in sorted((bundle / "configs").glob("*.json")):
        if path.name not in {"metadata.json", "inference.json", "train.json"}:
            runs += [(base, path.name) for base in overlay_bases(read_config(path)[0])]
    return runs


def undefined_references(parser: ConfigParser) -> set[str]:
    """Find what is referred to by ``@`` and defined nowhere."""
    parser.parse(reset=True)
    items = parser.ref_resolver.items
    texts = (item.get_config() for item in items.values())
    wanted = (ReferenceResolver.match_refs_pattern(text) for text in texts if isinstance(text, str))
    return {name for names in wanted for name in names if name not in items}


def test_metadata_fits_the_schema_of_monai(bundle, no_network):
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(SCHEMA))


@pytest.mark.parametrize(("config", "workflow"), [("inference.json", "infer"), ("train.json", "train")])
def test_required_properties_are_there_and_can_be_built(bundle, config, workflow, tmp_path):
    content, _ = read_config(bundle / "configs" / config)
    sections = {"": content, "train::": content.get("train", {}), "validate::": content.get("validate", {})}
    stand_in = {"_target_": "Dataset", "data": [{}]}  # the data themselves are not in the repository
    flow = ConfigWorkflow(
        config_file=str(bundle / "configs" / config),
        workflow_type=workflow,
        logging_file=False,
        bundle_root=str(bundle),
        output_dir=str(tmp_path),
        device="$torch.device('cpu')",
        initialize=[],
        **{f"{prefix}dataset": stand_in for prefix, section in sections.items() if "dataset" in section},
    )
    flow.initialize()
    assert flow.check_properties() == []


def test_network_takes_and_gives_what_the_metadata_say(bundle, no_network):
    configs = bundle / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        any=32,
        bundle_root=str(bundle),
    )


def test_training_and_inference_build_one_network(bundle, no_network):
    inference, train = (
        parser_of(bundle, name).get_parsed_content("network_def") for name in ("inference.json", "train.json")
    )
    assert repr(inference) == repr(train)
    shapes = {name: value.shape for name, value in inference.state_dict().items()}
    assert shapes == {name: value.shape for name, value in train.state_dict().items()}


def test_weights_fit_the_network_key_by_key(bundle, no_network):
    network = parser_of(bundle, "inference.json").get_parsed_content("network_def")
    weights = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(weights, strict=True)


def test_every_reference_is_defined(bundle):
    undefined = {names: undefined_references(parser_of(bundle, *names)) for names in combinations(bundle)}
    assert not {" + ".join(names): found for names, found in undefined.items() if found}


def test_inference_is_built_without_a_network(bundle, no_network):
    parser = parser_of(bundle, "inference.json")
    parser["device"] = "$torch.device('cpu')"
    assert callable(parser.get_parsed_content("preprocessing"))
    assert callable(parser.get_parsed_content("inferer"))
    assert isinstance(parser.get_parsed_content("network"), torch.nn.Module)


def test_undefined_reference_would_be_found(tmp_path):
    folder = make_bundle("liver_ct_segmentation", tmp_path)
    parser = parser_of(folder, "inference.json")
    assert undefined_references(parser) == set()
    parser["network"] = "$@netwrk_def.to(@device)"
    assert undefined_references(parser) == {"netwrk_def"}


def test_network_access_would_be_found(no_network):
    parser = ConfigParser({"imports": ["$import socket"], "x": "$socket.create_connection(('127.0.0.1', 9))"})
    with pytest.raises(RuntimeError, match="create_connection") as caught:
        parser.get_parsed_content("x")
    assert "the network was asked for" in repr(caught.value.__cause__)
