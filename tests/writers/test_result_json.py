"""Result and refusal as JSON: valid under the schemas, equal bytes, and nothing that the schemas forbid."""

import dataclasses
import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
import torch

from shared_nets.refusals import CODES, InputRefused
from shared_nets.transforms.ckd_epi import STAGES
from shared_nets.types import RESEARCH_USE_ONLY, Estimate, Finding
from shared_nets.writers.result_json import refusal_as_dict, result_as_dict, to_json_bytes

SCHEMAS = files("shared_nets.writers") / "schemas"


def test_both_schemas_are_schemas():
    for name in ("ckd_result", "refusal"):
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schema_names_the_stages_of_the_equations_in_their_order():
    schema = json.loads((SCHEMAS / "ckd_result.schema.json").read_text(encoding="utf-8"))
    assert tuple(schema["properties"]["stage"]["enum"]) == STAGES
    assert tuple(schema["properties"]["stage_probabilities"]["required"]) == STAGES


def test_a_result_says_in_json_what_it_says_in_python(make_result):
    content = result_as_dict(make_result())
    assert content["study_id"] == "case_00001"
    assert content["creatinine"] == {"value": 1.35, "low": 0.95, "high": 1.9, "level": 0.9, "unit": "mg/dL"}
    assert content["egfr"]["unit"] == "mL/min/{1.73_m2}"
    assert content["slices"]["sop_instance_uids"] == ["1.2.840.1", "1.2.840.2"]
    assert content["warnings"] == [{"code": "PHASE_UNKNOWN", "message": "The contrast phase is not known."}]
    assert content["provenance"]["weights_sha256"] == {"model": "0123456789abcdef" * 4}
    assert content["notice"] == RESEARCH_USE_ONLY


def test_a_classification_result_has_null_where_nothing_was_estimated(make_result):
    content = result_as_dict(make_result(creatinine=None, egfr=None))
    assert content["creatinine"] is None
    assert content["egfr"] is None


def test_numbers_of_numpy_and_torch_become_plain_numbers(make_result):
    provenance = dataclasses.replace(
        make_result().provenance,
        thresholds={"area": np.float32(50.0), "count": np.int64(3)},
        image={"spacing_mm": np.array([0.5, 0.5, 3.0]), "shape": torch.tensor([4, 4, 2])},
    )
    content = result_as_dict(make_result(provenance=provenance))["provenance"]
    assert content["thresholds"] == {"area": 50.0, "count": 3}
    assert content["image"] == {"spacing_mm": [0.5, 0.5, 3.0], "shape": [4, 4, 2]}


def test_what_is_no_plain_value_is_refused(make_result):
    provenance = dataclasses.replace(make_result().provenance, image={"header": object()})
    with pytest.raises(TypeError, match="a result must hold plain values, got object"):
        result_as_dict(make_result(provenance=provenance))


def test_nan_never_reaches_a_file(make_result):
    nan = Estimate(value=float("nan"), low=0.9, high=1.9, level=0.9, unit="mg/dL")
    with pytest.raises(ValueError, match="not JSON compliant"):
        result_as_dict(make_result(creatinine=nan))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json_bytes({"figure": float("inf")})


def _estimate(**changes) -> Estimate:
    return Estimate(**{"value": 1.35, "low": 0.95, "high": 1.9, "level": 0.9, "unit": "mg/dL", **changes})


PROBABILITIES = {"G1": 0.0, "G2": 0.25, "G3a": 0.5, "G3b": 0.25, "G4": 0.0, "G5": 0.0}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"study_id": "../x"}, id="a-path-for-a-name"),
        pytest.param({"study_id": ".."}, id="the-parent-for-a-name"),
        pytest.param({"study_id": ""}, id="no-name"),
        pytest.param({"creatinine": _estimate(value=0.0)}, id="no-creatinine"),
        pytest.param({"creatinine": _estimate(low=-0.1)}, id="negative-creatinine"),
        pytest.param({"creatinine": _estimate(level=90)}, id="level-in-percent"),
        pytest.param({"creatinine": 1.35}, id="a-bare-number"),
        pytest.param({"stage": "G3"}, id="a-stage-that-is-none"),
        pytest.param({"stage": None}, id="no-stage"),
        pytest.param({"stage_probabilities": {"G1": 1.0}}, id="stages-without-probability"),
        pytest.param({"stage_probabilities": {**PROBABILITIES, "G1": 1.5}}, id="a-probability-above-1"),
        pytest.param({"stage_probabilities": {**PROBABILITIES, "G6": 0.0}}, id="one-stage-too-many"),
        pytest.param({"clinical_used": {"age": {"unit": "a"}}}, id="a-clinical-entry-without-value"),
        pytest.param({"warnings": (Finding(code="phase unknown", message=""),)}, id="a-sentence-for-a-code"),
        pytest.param({"statements": ()}, id="no-statements"),
        pytest.param({"notice": "For clinical use."}, id="another-notice"),
    ],
)
def test_an_invalid_result_is_refused_by_the_schema(make_result, changes):
    with pytest.raises(jsonschema.ValidationError):
        result_as_dict(make_result(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"config_sha256": ""}, id="configuration-not-hashed"),
        pytest.param({"config_sha256": "A" * 64}, id="capitals-in-a-hash"),
        pytest.param({"weights_sha256": {}}, id="no-weights"),
        pytest.param({"weights_sha256": {"model": "abc"}}, id="a-hash-cut-short"),
        pytest.param({"packages": {"monai": 1.6}}, id="a-number-for-a-version"),
    ],
)
def test_a_result_without_full_provenance_is_refused_by_the_schema(make_result, changes):
    with pytest.raises(jsonschema.ValidationError):
        result_as_dict(make_result(provenance=dataclasses.replace(make_result().provenance, **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"indices": ()}, id="no-slices"),
        pytest.param({"indices": (-1,)}, id="a-negative-slice"),
        pytest.param({"num_kidney_slices": 0}, id="no-kidney"),
        pytest.param({"sop_instance_uids": ("PatientName",)}, id="a-word-for-a-uid"),
    ],
)
def test_slices_that_cannot_be_are_refused_by_the_schema(make_result, changes):
    with pytest.raises(jsonschema.ValidationError):
        result_as_dict(make_result(slices=dataclasses.replace(make_result().slices, **changes)))


def test_every_field_of_a_result_is_required_and_none_may_be_added(make_result):
    schema = json.loads((SCHEMAS / "ckd_result.schema.json").read_text(encoding="utf-8"))
    content = result_as_dict(make_result())
    jsonschema.validate(content, schema)
    for name in content:
        with pytest.raises(jsonschema.ValidationError, match=f"'{name}' is a required property"):
            jsonschema.validate({k: v for k, v in content.items() if k != name}, schema)
    with pytest.raises(jsonschema.ValidationError, match="patient_name"):
        jsonschema.validate({**content, "patient_name": "X"}, schema)


@pytest.mark.parametrize("code", CODES)
def test_every_refusal_is_valid_json_under_its_schema(code):
    assert refusal_as_dict("case_1", InputRefused(code, "What is wrong.", "What to do.")) == {
        "study_id": "case_1",
        "status": "refused",
        "code": code,
        "message": "What is wrong.",
        "remedy": "What to do.",
        "notice": RESEARCH_USE_ONLY,
    }


@pytest.mark.parametrize("study_id", ["../x", "..", "a/b", ""])
def test_a_refusal_cannot_be_written_outside_its_folder(study_id):
    with pytest.raises(jsonschema.ValidationError):
        refusal_as_dict(study_id, InputRefused("MASK_EMPTY", "No kidney.", "Check it."))


def test_equal_results_give_equal_bytes(make_result):
    first, second = (to_json_bytes(result_as_dict(make_result())) for _ in range(2))
    assert first == second
    assert json.loads(first) == result_as_dict(make_result())


def test_json_is_utf8_with_keys_in_their_order_and_a_final_newline():
    assert to_json_bytes({"b": "mL/min/1.73 m²", "a": [1]}) == (
        b'{\n  "b": "mL/min/1.73 m\xc2\xb2",\n  "a": [\n    1\n  ]\n}\n'
    )


def test_a_kidney_result_keeps_every_number_under_its_own_schema(make_kidney_result):
    content = result_as_dict(make_kidney_result())
    assert content["kidneys"]["left"] == {
        "volume_ml": 163.4,
        "length_mm": 112.5,
        "mean_hu": 139.5,
        "is_cut_off": True,
    }
    assert content["total_volume_ml"] == 314.6


def test_a_kidney_result_with_an_unknown_side_is_refused(make_kidney_result):
    kidney = make_kidney_result().kidneys["left"]
    with pytest.raises(jsonschema.ValidationError, match="middle"):
        result_as_dict(make_kidney_result(kidneys={"middle": kidney}))
