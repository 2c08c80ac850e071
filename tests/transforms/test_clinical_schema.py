"""The schemas themselves: names, order, hash, and what they leave out on purpose."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from shared_nets.transforms.clinical_schema import (
    CKD_23,
    KITS,
    KITS_WITH_SHAPE,
    SCHEMAS,
    ClinicalFeature,
    ClinicalSchema,
    clinical_schema,
    schema_from_json,
)


def number(name, **other):
    return ClinicalFeature(**{"name": name, "unit": "1", "minimum": 0, "maximum": 10, **other})


def test_the_23_values_stand_in_the_published_order():
    assert CKD_23.names == (
        "SEX", "AGE", "BMI", "BUN", "Hb", "Albumin", "P", "Ca", "tCO2", "K", "Cr_48h_log",
        "original_shape_SurfaceVolumeRatio", "original_shape_Sphericity", "original_shape_Maximum3DDiameter",
        "original_shape_Maximum2DDiameterColumn", "original_shape_MinorAxisLength",
        "original_shape_LeastAxisLength", "original_shape_Elongation", "original_shape_Flatness",
        "local_thickness_mean", "convexity_ratio_area", "convexity_ratio_vol", "original_shape_MeshVolume",
    )  # fmt: skip


def test_the_kits_values_leave_out_the_answer():
    for name in KITS_WITH_SHAPE.names:
        assert "egfr" not in name
        assert "chronic_kidney" not in name
    assert len(KITS) == 5 + 18  # 19 comorbidities less chronic kidney disease
    assert KITS_WITH_SHAPE.names[: len(KITS)] == KITS.names


def test_women_are_1_and_men_are_0():
    assert CKD_23["SEX"].encode("male") == 0.0
    assert CKD_23["SEX"].encode("female") == 1.0
    assert KITS["sex"].encode("female") == 1.0


def test_encoding_puts_every_value_in_its_place_and_leaves_nan_for_the_rest():
    vector = CKD_23.encode({"AGE": 61.0, "SEX": "female", "K": 4.1, "Hb": None})
    assert vector.dtype == np.float32
    assert vector.shape == (23,)
    assert vector[[0, 1, 9]] == pytest.approx([1.0, 61.0, 4.1])
    assert np.isnan(np.delete(vector, [0, 1, 9])).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"age": 61.0, "Age": 1.0}, r"CKD_23, got \['Age', 'age'\]", id="unknown name"),
        pytest.param({"SEX": "x"}, r"SEX must be one of \('male', 'female'\), got 'x'", id="unknown word"),
        pytest.param({"K": 40.0}, "K must lie in 1 to 12, got 40.0", id="out of range"),
    ],
)
def test_encoding_checks_names_words_and_ranges(values, message):
    with pytest.raises(ValueError, match=message):
        CKD_23.encode(values)


def test_dropping_a_feature_keeps_the_order_and_changes_name_and_hash():
    ablated = CKD_23.without("cr_48h_log")
    assert ablated.names == tuple(n for n in CKD_23.names if n != "Cr_48h_log")
    assert ablated.name == "CKD_23 without Cr_48h_log"
    assert ablated.sha256 != CKD_23.sha256
    assert CKD_23.without() is CKD_23
    assert CKD_23.without("K", "P").sha256 == CKD_23.without("P", "K").sha256


def test_dropping_what_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="creatinine"):
        CKD_23.without("creatinine")


def test_the_hash_follows_the_meaning_of_the_vector_and_nothing_else():
    schema = ClinicalSchema("s", (number("a"), number("b")))
    same = ClinicalSchema("s", (number("a", meaning="prose", aliases=("c",), minimum=0.0), number("b")))
    assert schema.sha256 == same.sha256
    for other in (
        ClinicalSchema("s", (number("b"), number("a"))),
        ClinicalSchema("t", (number("a"), number("b"))),
        ClinicalSchema("s", (number("a", maximum=11), number("b"))),
    ):
        assert schema.sha256 != other.sha256


def test_released_schemas_keep_their_hash():
    """A change here makes released weights unusable: change it only together with them."""
    assert {name: schema.sha256[:12] for name, schema in SCHEMAS.items()} == HASHES


def test_names_and_aliases_are_found_in_any_spelling():
    assert CKD_23.find(" body-mass index ").name == "BMI"
    assert CKD_23.find("HCO3").name == "tCO2"
    assert CKD_23.find("nonsense") is None
    assert CKD_23.find_quantity("age").name == "AGE"
    assert KITS.find_quantity("log_creatinine") is None


def test_a_name_must_not_mean_two_features():
    with pytest.raises(ValueError, match=r"names of their own, got \['a'\]"):
        ClinicalSchema("s", (number("a"), number("b", aliases=("A",))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"kind": "text"}, "kind must be one of", id="kind"),
        pytest.param({"source": "guess"}, "source must be one of", id="source"),
        pytest.param({"minimum": 10}, "minimum must be below maximum, got 10 and 10", id="range"),
        pytest.param({"quantity": "mood"}, "quantity must be one of", id="quantity"),
        pytest.param({"unit": "mg"}, "unit must be the first unit of number, got 'mg'", id="unit"),
        pytest.param({"categories": ("a", "b")}, "categories must fit a continuous value", id="words"),
        pytest.param({"kind": "binary", "categories": ("a",)}, "categories must fit a binary", id="one word"),
    ],
)
def test_a_feature_that_contradicts_itself_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        number("a", **change)


def test_schemas_are_found_by_name():
    assert clinical_schema("KITS") is KITS
    assert clinical_schema("CKD_23", ["Cr_48h_log"]).names == CKD_23.without("Cr_48h_log").names
    with pytest.raises(ValueError, match=r"name must be one of \['CKD_23', 'KITS', 'KITS_WITH_SHAPE'\]"):
        clinical_schema("ckd")


def test_a_schema_can_be_read_from_a_file(tmp_path):
    rows = [{"name": "a", "unit": "1", "minimum": 0, "maximum": 1}]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine", "features": rows}))
    schema = schema_from_json(path)
    assert (schema.name, schema.names) == ("mine", ("a",))
    assert math.isnan(schema.encode({})[0])


HASHES = {"CKD_23": "a88c25cd93d2", "KITS": "cbe763c60a19", "KITS_WITH_SHAPE": "4a2dfc838d21"}
