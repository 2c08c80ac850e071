"""A lesion result as JSON: valid under its schema, which forbids what a result may not say."""

import json
from importlib.resources import files

import jsonschema
import pytest

from shared_nets.types import Finding
from shared_nets.writers.result_json import SCHEMA_NAMES, result_as_dict, to_json_bytes
from tests.writers.lesion_results import UNLIKE, abstaining_result, lesion_result, uncalibrated_result

SCHEMAS = files("shared_nets.writers") / "schemas"


@pytest.mark.parametrize("name", [*SCHEMA_NAMES.values(), "refusal"])
def test_every_schema_is_one(name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("make", [lesion_result, abstaining_result, uncalibrated_result])
def test_a_result_says_in_json_what_it_says_in_python(make):
    result, content = make(), result_as_dict(make())
    assert content["label"] == result.label
    assert content["class_probabilities"] == result.class_probabilities
    assert content["prediction_set"] == list(result.prediction_set)
    assert content["ood_score"] == result.ood_score
    assert content["abstentions"] == [{"code": a.code, "message": a.message} for a in result.abstentions]
    assert json.loads(to_json_bytes(content)) == content


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"label": None}, id="no label and no reason"),
        pytest.param({"abstentions": (UNLIKE,)}, id="a label in spite of a reason"),
        pytest.param({"label": ""}, id="an empty label"),
        pytest.param({"class_probabilities": {"nv": 1.0}}, id="one class"),
        pytest.param({"class_probabilities": {"nv": 1.2, "mel": 0.0}}, id="a probability above 1"),
        pytest.param({"malignancy": -0.1}, id="a negative malignancy"),
        pytest.param({"malignant_classes": ()}, id="nothing is malignant"),
        pytest.param({"prediction_set": ()}, id="an empty set"),
        pytest.param({"prediction_set": ("nv", "nv")}, id="a class twice"),
        pytest.param({"coverage": 90}, id="coverage in percent"),
        pytest.param({"ood_score": -1.0}, id="a negative distance"),
        pytest.param({"statements": ()}, id="no statements"),
        pytest.param({"notice": "For clinical use."}, id="another notice"),
        pytest.param({"study_id": "../x"}, id="a path for a name"),
        pytest.param({"metadata_used": {"age": {"unit": "a"}}}, id="metadata without a value"),
        pytest.param(
            {"label": None, "abstentions": (Finding(code="WHY", message=""),)}, id="a code of another kind"
        ),
    ],
)
def test_a_result_that_may_not_be_is_refused_by_the_schema(changes):
    with pytest.raises(jsonschema.ValidationError):
        result_as_dict(lesion_result(**changes))


def test_a_distance_that_is_no_number_never_reaches_a_file():
    with pytest.raises(ValueError, match="not JSON compliant"):
        result_as_dict(lesion_result(ood_score=float("nan")))


def test_every_field_is_required_and_none_may_be_added():
    schema = json.loads((SCHEMAS / "lesion_result.schema.json").read_text(encoding="utf-8"))
    content = result_as_dict(lesion_result())
    assert schema["required"] == list(content)
    for name in content:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in content.items() if k != name}, schema)
    with pytest.raises(jsonschema.ValidationError, match="patient_name"):
        jsonschema.validate({**content, "patient_name": "X"}, schema)
