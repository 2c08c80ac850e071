"""Which studies a run is about: one, a folder, a datalist; and the dataset that survives refusals."""

import json
import logging
from pathlib import Path

import pytest
from monai.transforms import Compose, Transform

from shared_nets.data.studies import StudyDataset, list_studies
from shared_nets.refusals import InputRefused, refusal_behind


@pytest.fixture
def write_datalist(tmp_path):
    """Give ``write_datalist(content) -> path`` of a JSON file in ``tmp_path/lists``."""

    def write(content) -> str:
        path = tmp_path / "lists" / "studies.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write


def refused(code: str):
    return pytest.raises(InputRefused, match=f"^{code}: ")


# one study


def test_one_study_is_named_after_its_image_and_holds_what_was_given():
    (study,) = list_studies(image="/scans/case 7.nii.gz", clinical={"age": 60})
    assert study == {"study_id": "case_7", "image": "/scans/case 7.nii.gz", "clinical": {"age": 60}}


def test_a_mask_alone_is_a_study():
    assert list_studies(mask="/scans/m.nrrd") == [{"study_id": "m", "mask": "/scans/m.nrrd"}]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param("/a/series_1", "series_1", id="folder"),
        pytest.param("/a/series_1/", "series_1", id="folder-with-slash"),
        pytest.param("/a/b/../series_1", "series_1", id="folder-by-a-detour"),
        pytest.param("/a/CT.NII.GZ", "CT", id="capitals"),
        pytest.param("/a/scan.v2.mha", "scan.v2", id="dots"),
        pytest.param("/a/.nii", "study", id="nothing-but-a-suffix"),
    ],
)
def test_the_name_of_a_study_comes_from_its_path(path, name):
    assert list_studies(image=path)[0]["study_id"] == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param("../x", "x", id="parent"),
        pytest.param("../../etc/passwd", "etc_passwd", id="far-away"),
        pytest.param("/absolute", "absolute", id="absolute"),
        pytest.param("a\\b:c\x00d\n", "a_b_c_d", id="other-systems"),
        pytest.param(".hidden", "hidden", id="hidden"),
        pytest.param("Müller, Änne", "M_ller_nne", id="umlauts"),
        pytest.param(7, "7", id="number-from-the-command-line"),
        pytest.param(0, "0", id="zero"),
    ],
)
def test_a_name_cannot_leave_the_output_folder(given, name):
    assert list_studies(image="/a.nii", study_id=given)[0]["study_id"] == name
    assert list_studies(datalist=[{"image": "/a.nii", "study_id": given}])[0]["study_id"] == name


@pytest.mark.parametrize("given", ["..", "", "///", "._."])
def test_a_name_of_which_nothing_is_left_is_refused(given):
    with pytest.raises(ValueError, match="study_id must hold letters or digits, got"):
        list_studies(image="/a.nii", study_id=given)


def test_one_study_and_a_datalist_exclude_each_other():
    with pytest.raises(ValueError, match="image and datalist must not both be given"):
        list_studies(image="/a.nii", datalist=[{"image": "/b.nii"}])


def test_a_run_about_nothing_says_what_to_give():
    with refused("INPUT_EMPTY") as caught:
        list_studies()
    assert "--image" in caught.value.remedy
    assert "--datalist" in caught.value.remedy


# a folder


def test_a_folder_gives_its_studies_by_name(tmp_path):
    for name in ("s2", "s1"):
        (tmp_path / name / "ct").mkdir(parents=True)
        (tmp_path / name / "mask.nii.gz").touch()
    (tmp_path / "s1" / "clinical.csv").touch()
    (tmp_path / "a_file_is_no_study.txt").touch()
    assert list_studies(dataset_dir=str(tmp_path)) == [
        {
            "study_id": "s1",
            "image": str(tmp_path / "s1" / "ct"),
            "mask": str(tmp_path / "s1" / "mask.nii.gz"),
            "clinical": str(tmp_path / "s1" / "clinical.csv"),
        },
        {
            "study_id": "s2",
            "image": str(tmp_path / "s2" / "ct"),
            "mask": str(tmp_path / "s2" / "mask.nii.gz"),
        },
    ]


def test_a_folder_without_scan_and_mask_is_skipped_aloud(tmp_path, caplog):
    (tmp_path / "empty").mkdir()
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "ct.nrrd").touch()
    with caplog.at_level(logging.WARNING):
        (study,) = list_studies(dataset_dir=str(tmp_path))
    assert study["image"].endswith("ct.nrrd")
    assert "empty is skipped: it holds neither ct nor mask nor image." in caplog.text


def test_two_masks_in_a_study_are_not_guessed_between(tmp_path):
    (tmp_path / "s1").mkdir()
    for name in ("mask.nii.gz", "mask.dcm"):
        (tmp_path / "s1" / name).touch()
    with refused("SERIES_AMBIGUOUS") as caught:
        list_studies(dataset_dir=str(tmp_path))
    assert "s1 holds more than one mask: mask.nii.gz, mask.dcm" in caught.value.message


def test_an_empty_folder_and_a_missing_one_are_told_apart(tmp_path):
    with refused("INPUT_EMPTY"):
        list_studies(dataset_dir=str(tmp_path))
    with refused("INPUT_NOT_FOUND"):
        list_studies(dataset_dir=str(tmp_path / "nowhere"))


# a datalist

ROWS = [
    {"image": "ct/1.nii.gz", "mask": "/elsewhere/1.nii.gz", "clinical": {"age": 60}, "egfr_ml_min": 72.5},
    {"study_id": "second", "mask": "m/2.nii.gz", "clinical": "2.json"},
]


def test_relative_paths_of_a_datalist_start_at_its_folder(write_datalist, tmp_path):
    path = write_datalist(ROWS)
    lists = tmp_path / "lists"
    assert list_studies(datalist=path) == [
        {
            "study_id": "1",
            "image": str(lists / "ct" / "1.nii.gz"),
            "mask": "/elsewhere/1.nii.gz",
            "clinical": {"age": 60},
            "egfr_ml_min": 72.5,
        },
        {"study_id": "second", "mask": str(lists / "m" / "2.nii.gz"), "clinical": str(lists / "2.json")},
    ]


def test_relative_paths_of_a_datalist_start_at_dataset_dir_where_it_is_given(write_datalist):
    first, second = list_studies(datalist=write_datalist(ROWS), dataset_dir="/data")
    assert first["image"] == "/data/ct/1.nii.gz"
    assert first["mask"] == "/elsewhere/1.nii.gz"
    assert second["clinical"] == "/data/2.json"


def test_rows_given_as_such_are_not_changed():
    rows = [{"image": "ct/1.nii.gz", "study_id": "a b"}]
    (study,) = list_studies(datalist=rows, dataset_dir="/data")
    assert study == {"study_id": "a_b", "image": "/data/ct/1.nii.gz"}
    assert rows == [{"image": "ct/1.nii.gz", "study_id": "a b"}]


def test_an_object_gives_the_list_under_its_key(write_datalist):
    path = write_datalist({"training": ROWS[:1], "testing": ROWS[1:]})
    assert [s["study_id"] for s in list_studies(datalist=path, datalist_key="testing")] == ["second"]


def test_an_object_with_one_list_needs_no_key(write_datalist):
    assert len(list_studies(datalist=write_datalist({"testing": ROWS}))) == 2


@pytest.mark.parametrize("key", [None, "validation"])
def test_a_key_that_is_not_there_is_refused_with_those_that_are(write_datalist, key):
    path = write_datalist({"training": ROWS, "testing": ROWS})
    with refused("INPUT_UNREADABLE") as caught:
        list_studies(datalist=path, datalist_key=key)
    assert "['testing', 'training']" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param('[{"image": "a.nii"}', "INPUT_UNREADABLE", id="cut-short"),
        pytest.param("study,image\n1,a.nii\n", "INPUT_UNREADABLE", id="csv"),
        pytest.param(["a.nii", "b.nii"], "INPUT_UNREADABLE", id="paths-without-names"),
        pytest.param({"testing": 3}, "INPUT_UNREADABLE", id="a-number-for-a-list"),
        pytest.param({"testing": {"image": "a.nii"}}, "INPUT_UNREADABLE", id="one-study-for-a-list"),
        pytest.param([], "INPUT_EMPTY", id="empty-list"),
        pytest.param({"testing": []}, "INPUT_EMPTY", id="empty-list-under-its-key"),
    ],
)
def test_a_datalist_that_is_none_is_refused(write_datalist, content, code):
    with refused(code):
        list_studies(datalist=write_datalist(content))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "studies.json"
    path.write_bytes(b"\xff\xfe\x00DICM")
    with refused("INPUT_UNREADABLE"):
        list_studies(datalist=str(path))


def test_a_datalist_that_does_not_exist_is_refused_without_its_folder(tmp_path):
    with refused("INPUT_NOT_FOUND") as caught:
        list_studies(datalist=str(tmp_path / "none.json"))
    assert caught.value.message == "There is no datalist none.json."


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([{"image": "/a/1.nii"}, {"image": "/b/1.nii"}], id="same-name"),
        pytest.param(
            [{"study_id": "a/b", "image": "/1"}, {"study_id": "a b", "image": "/2"}], id="once-cleaned"
        ),
    ],
)
def test_two_studies_may_not_share_an_output_folder(rows):
    with pytest.raises(InputRefused, match="Several studies have the study_id"):
        list_studies(datalist=rows)


def test_folds_choose_and_leave_out():
    rows = [{"image": f"/{name}.nii", "fold": fold} for name, fold in zip("abcd", (0, 1, 2, 1), strict=True)]
    assert [s["study_id"] for s in list_studies(datalist=rows, fold=1)] == ["b", "d"]
    assert [s["study_id"] for s in list_studies(datalist=rows, without_fold=1)] == ["a", "c"]
    with refused("INPUT_EMPTY") as caught:
        list_studies(datalist=rows, fold=7)
    assert "[0, 1, 2]" in caught.value.remedy


def test_a_study_without_a_fold_cannot_be_split():
    with pytest.raises(ValueError, match=r"fold must be given for every study .* got none for \['b'\]"):
        list_studies(datalist=[{"image": "/a.nii", "fold": 0}, {"image": "/b.nii"}], fold=0)


# the dataset


class RefuseSecond(Transform):
    """Refuses the study named ``s2`` and marks the others."""

    def __call__(self, data):
        if data["study_id"] == "s2":
            raise InputRefused("MASK_EMPTY", "The mask shows no kidney.", "Check it.")
        return {**data, "image": len(data)}


class Broken(Transform):
    """Fails as a programme with a defect does."""

    def __call__(self, data):
        raise KeyError("image")


class BrokenWhileRefusing(Transform):
    """A defect inside the handling of a refusal, which is no refusal."""

    def __call__(self, data):
        try:
            raise InputRefused("MASK_EMPTY", "The mask shows no kidney.", "Check it.")
        except InputRefused:
            return data["image"]


STUDIES = [{"study_id": "s1"}, {"study_id": "s2"}, {"study_id": "s3"}]


def test_a_refused_study_is_an_item_and_the_others_are_as_ever(caplog):
    dataset = StudyDataset(STUDIES, Compose([RefuseSecond()]))
    with caplog.at_level(logging.WARNING):
        first, second, third = (dataset[i] for i in range(3))
    assert first == {"study_id": "s1", "image": 1}
    assert third == {"study_id": "s3", "image": 1}
    assert set(second) == {"study_id", "refusal"}
    assert second["refusal"].code == "MASK_EMPTY"
    assert "s2 is refused: MASK_EMPTY" in caplog.text


def test_monai_wraps_what_a_transform_raises_and_the_refusal_is_found_behind_it():
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        Compose([Compose([RefuseSecond()])])(STUDIES[1])
    assert refusal_behind(caught.value).code == "MASK_EMPTY"


@pytest.mark.parametrize(
    "transform", [Broken(), BrokenWhileRefusing()], ids=["defect", "defect-while-refusing"]
)
def test_any_other_error_is_raised(transform):
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        StudyDataset(STUDIES, Compose([transform]))[0]
    assert isinstance(caught.value.__cause__, KeyError)
    assert refusal_behind(caught.value) is None


def test_without_a_transform_items_pass_and_stay_separate():
    dataset = StudyDataset(STUDIES)
    dataset[0]["image"] = 1
    assert dataset[0] == {"study_id": "s1"}
    assert len(dataset) == 3


def test_paths_may_be_path_objects():
    assert list_studies(image=Path("/scans/x.nii"))[0]["study_id"] == "x"
