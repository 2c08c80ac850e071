"""Every bundle is what MONAI's own tools expect, and is built without asking a network."""

from __future__ import annotations

import pytest
import torch

from tools.export_onnx import export_problems
from tools.network_rules import network_problems, parser_of

pytestmark = pytest.mark.xdist_group("bundles")  # one process pays for MONAI's imports


def test_bundle_is_what_monai_expects(bundle, no_network):
    assert network_problems(bundle) == []


def test_exports_that_the_metadata_name_give_the_same_numbers(bundle, no_network):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'shared_nets[onnx]'")
    assert export_problems(bundle) == []


def test_inference_is_built_without_a_network(bundle, no_network):
    parser = parser_of(bundle, "inference.json")
    assert callable(parser.get_parsed_content("preprocessing"))
    assert callable(parser.get_parsed_content("inferer"))
    assert isinstance(parser.get_parsed_content("network"), torch.nn.Module)


def test_network_access_would_be_found(no_network):
    from monai.bundle import ConfigParser

    parser = ConfigParser({"imports": ["$import socket"], "x": "$socket.create_connection(('127.0.0.1', 9))"})
    with pytest.raises(RuntimeError, match="create_connection") as caught:
        parser.get_parsed_content("x")
    assert "the network was asked for" in repr(caught.value.__cause__)
