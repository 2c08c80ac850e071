"""What the JSON of a bundle may evaluate: every harmless expression passes, every other one is named."""

from __future__ import annotations

import pytest

from tools.expression_rules import expression_problems, import_problem


@pytest.mark.parametrize(
    "text",
    [
        "torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "@bundle_root + '/models/model.pt'",
        "not @write_picture",
        "@train::trainer.run()",
        "monai.handlers.from_engine(['loss'], first=True)",
        "[{'image': str(path)} for path in sorted(pathlib.Path(@dataset_dir).glob(@image_pattern))]",
        "[p for p in @network.parameters() if p.requires_grad]",
        "@max_epochs * (@epoch_length // @batch_size)",
        "', '.join(@clinical_without)",
        "numpy.uint8",
        "@window_hu[0]",
    ],
)
def test_harmless_expression_is_allowed(text):
    assert list(expression_problems(text)) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("(lambda: 1)()", "must not use lambda", id="lambda"),
        pytest.param("__import__('os').system('ls')", "must not use __import__", id="import function"),
        pytest.param("open('x').read()", "must not use open", id="file"),
        pytest.param("eval('1')", "must not use eval", id="eval"),
        pytest.param("getattr(torch, 'hub')", "must not use getattr", id="attribute by name"),
        pytest.param("os.getcwd()", "must not use os", id="module that is not offered"),
        pytest.param("().__class__.__mro__", "must not use __class__", id="private attribute"),
        pytest.param("torch.hub.load('a', 'b')", "must not use torch.hub.load", id="download"),
        pytest.param("torch.load('x')", "must not use torch.load", id="pickle"),
        pytest.param("[t for t in [torch]]", "must not use torch", id="module under another name"),
        pytest.param("monai.bundle.download('x')", "must not use monai.bundle.download", id="monai download"),
        pytest.param("numpy.load('x', None)", "must not use numpy.load", id="numpy file"),
        pytest.param("pathlib.Path('x').unlink()", "must not use unlink", id="removal"),
        pytest.param("pathlib.Path('x').write_text('y')", "must not use write_text", id="writing"),
        pytest.param("(x := 1)", "must be a plain expression", id="assignment"),
        pytest.param("1 +", "must be a Python expression", id="no expression"),
        pytest.param("import os", "must be a Python expression", id="statement"),
    ],
)
def test_other_expression_is_named(text, problem):
    assert any(problem in found for found in expression_problems(text)), list(expression_problems(text))


def test_import_of_an_offered_module_is_allowed():
    assert import_problem("$import pathlib") is None


@pytest.mark.parametrize("text", ["$import os", "$from pathlib import Path", "$import pathlib as os", "x"])
def test_other_import_is_named(text):
    assert "must import one of math, monai" in import_problem(text)
