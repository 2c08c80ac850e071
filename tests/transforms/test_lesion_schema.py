"""The schemas of lesion metadata: order, vocabularies, hash, and what they keep away from a network."""

from __future__ import annotations

import json

import numpy as np
import pytest

from shared_nets.transforms.lesion_schema import LESION_SCHEMAS, lesion_schema, lesion_schema_from_json

ISIC, CLINIC = lesion_schema("isic2024"), lesion_schema("dermoscopy_clinic")
#: The values of tbp_lv_location in the training table of the ISIC 2024 challenge.
LOCATIONS = (
    "Torso Back Top Third", "Torso Front Top Half", "Torso Back Middle Third", "Left Leg - Lower",
    "Left Leg - Upper", "Right Leg - Lower", "Right Leg - Upper", "Left Arm - Lower", "Left Arm - Upper",
    "Right Arm - Lower", "Right Arm - Upper", "Torso Front Bottom Half", "Torso Back Bottom Third",
    "Head & Neck", "Unknown", "Left Leg", "Right Leg", "Left Arm", "Right Arm", "Torso Front", "Torso Back",
)  # fmt: skip
HASHES = {"isic2024": "f2075e456d76", "dermoscopy_clinic": "e81c84c78bf5"}


def write(path, **changes):
    content = {
        "name": "mine",
        "id_columns": ["id"],
        "numbers": [{"name": "size", "unit": "mm", "minimum": 0, "maximum": 9, "quantity": "length_mm"}],
        "categories": [
            {
                "name": "site", "meaning": "", "aliases": [],
                "values": ["arm", "leg"], "synonyms": {"leg": ["thigh"]},
            }
        ],
        "ignored": [{"columns": ["dx*"], "reason": "it is the answer"}],
    }  # fmt: skip
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_the_isic_values_stand_in_the_published_order():
    assert ISIC.names == (
        "age_approx", "clin_size_long_diam_mm", "tbp_lv_A", "tbp_lv_Aext", "tbp_lv_B", "tbp_lv_Bext",
        "tbp_lv_C", "tbp_lv_Cext", "tbp_lv_H", "tbp_lv_Hext", "tbp_lv_L", "tbp_lv_Lext", "tbp_lv_areaMM2",
        "tbp_lv_area_perim_ratio", "tbp_lv_color_std_mean", "tbp_lv_deltaA", "tbp_lv_deltaB",
        "tbp_lv_deltaL", "tbp_lv_deltaLB", "tbp_lv_deltaLBnorm", "tbp_lv_eccentricity",
        "tbp_lv_minorAxisMM", "tbp_lv_nevi_confidence", "tbp_lv_norm_border", "tbp_lv_norm_color",
        "tbp_lv_perimeterMM", "tbp_lv_radial_color_std_max", "tbp_lv_stdL", "tbp_lv_stdLExt",
        "tbp_lv_symm_2axis", "tbp_lv_symm_2axis_angle", "tbp_lv_x", "tbp_lv_y", "tbp_lv_z",
        "sex", "anatom_site_general", "tbp_tile_type", "tbp_lv_location", "tbp_lv_location_simple",
        "attribution",
    )  # fmt: skip
    assert ISIC.num_numbers == 34
    assert ISIC.category_sizes == (3, 6, 3, 21, 8, 8)  # unknown and 2, 5, 2, 20, 7, 7 words


def test_a_clinic_gives_age_sex_and_site():
    assert CLINIC.names == ("age", "sex", "anatomical_site")
    assert (CLINIC.num_numbers, CLINIC.category_sizes) == (1, (3, 9))


def test_all_21_locations_have_numbers_of_their_own_and_unknown_is_0():
    feature = ISIC.values["tbp_lv_location"]
    place = ISIC.names.index(feature.name)
    numbers = [ISIC.encode({feature.name: ISIC.word(feature, text)})[place] for text in LOCATIONS]
    assert sorted(numbers) == list(range(21))
    assert numbers[LOCATIONS.index("Unknown")] == 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("back", "posterior torso"),
        ("Posterior torso", "posterior torso"),
        ("abdomen", "anterior torso"),
        ("chest", "anterior torso"),
        ("face", "head/neck"),
        ("scalp", "head/neck"),
        ("ear", "head/neck"),
        ("neck", "head/neck"),
        ("hand", "upper extremity"),
        ("upper extremity", "upper extremity"),
        ("foot", "lower extremity"),
        ("LOWER-EXTREMITY", "lower extremity"),
        ("trunk", "torso"),
        ("acral", "palms/soles"),
        ("genital", "oral/genital"),
        ("spaceship", None),
    ],
)
def test_every_site_of_ham10000_and_common_words_are_understood(text, word):
    assert CLINIC.word(CLINIC.values["anatomical_site"], text) == word


def test_a_row_has_numbers_then_categories_and_says_what_is_missing():
    row = CLINIC.encode({"age": 55.0, "sex": "male", "anatomical_site": "torso"})
    assert row.dtype == np.float32
    assert row.tolist() == [55.0, 2.0, 4.0]
    empty = ISIC.encode({})
    assert np.isnan(empty[:34]).all()
    assert empty[34:].tolist() == [0.0] * 6


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("target", "diagnosis"),
        ("iddx_full", "diagnosis"),
        ("IDDX_1", "diagnosis"),
        ("mel_thick_mm", "diagnosis"),
        ("dx", "diagnosis"),
        ("patient_id", "does not describe"),
    ],
)
@pytest.mark.parametrize("schema", [ISIC, CLINIC], ids=LESION_SCHEMAS)
def test_columns_that_tell_the_answer_or_nothing_are_named_with_the_reason(schema, column, reason):
    assert reason in schema.reason_to_ignore(column)
    assert schema.values.find(column) is None


def test_the_confidence_of_the_scanner_is_not_read():
    assert "not known elsewhere" in ISIC.reason_to_ignore("tbp_lv_dnn_lesion_confidence")
    assert ISIC.reason_to_ignore("tbp_lv_nevi_confidence") is None
    assert all(ISIC.reason_to_ignore(name) is None for name in ISIC.names)


def test_released_schemas_keep_their_hash():
    """A change here makes released weights unusable: change it only together with them."""
    assert {name: lesion_schema(name).sha256[:12] for name in LESION_SCHEMAS} == HASHES


def test_the_hash_follows_the_vocabulary_and_not_its_synonyms(tmp_path):
    schema = lesion_schema_from_json(write(tmp_path / "a.json"))
    row = {"name": "site", "meaning": "prose", "aliases": ["place"], "values": ["arm", "leg"], "synonyms": {}}
    same = lesion_schema_from_json(write(tmp_path / "b.json", categories=[row]))
    turned = lesion_schema_from_json(
        write(tmp_path / "c.json", categories=[{**row, "values": ["leg", "arm"]}])
    )
    assert schema.sha256 == same.sha256
    assert schema.sha256 != turned.sha256


def test_a_synonym_must_stand_for_one_word_of_the_vocabulary(tmp_path):
    row = {"name": "site", "meaning": "", "aliases": [], "values": ["arm", "leg"]}
    for synonyms, message in (
        ({"tail": ["x"]}, r"synonyms of site must stand for words of its vocabulary, got \['tail'\]"),
        ({"arm": ["limb"], "leg": ["Limb"]}, "must each stand for one word"),
    ):
        path = write(tmp_path / "a.json", categories=[{**row, "synonyms": synonyms}])
        with pytest.raises(ValueError, match=message):
            lesion_schema_from_json(path)


def test_schemas_are_found_by_name():
    assert lesion_schema("isic2024") is ISIC
    with pytest.raises(ValueError, match=r"name must be one of \('isic2024', 'dermoscopy_clinic'\), got 'x'"):
        lesion_schema("x")
