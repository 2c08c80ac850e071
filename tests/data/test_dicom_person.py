"""Age, sex, height and weight leave the reader; the date of birth does not."""

from __future__ import annotations

import pytest

from shared_nets.data.ct_reader import CTReader
from shared_nets.data.dicom_header import read_header
from shared_nets.data.dicom_person import person_facts
from shared_nets.data.dicom_synthetic import synthetic_series, write_file
from shared_nets.data.photograph_reader import PhotographReader
from shared_nets.data.photograph_synthetic import dicom_photograph, write_dicom_photograph


@pytest.fixture
def facts_of(tmp_path):
    """Give ``facts_of(PatientAge=…) -> facts`` of a slice with these values."""

    def read(**values) -> dict[str, str]:
        dataset = synthetic_series(1)[0]
        for keyword, value in {"PatientAge": "", "PatientSex": "", **values}.items():
            setattr(dataset, keyword, value)
        write_file(tmp_path / "a.dcm", dataset)
        header = read_header(str(tmp_path / "a.dcm"))
        assert header is not None
        return person_facts(header)

    return read


def test_what_the_header_has_is_given_as_it_stands(facts_of):
    given = {"PatientAge": "061Y", "PatientSex": "F", "PatientSize": "1.7", "PatientWeight": "81.5"}
    assert facts_of(**given) == given


def test_a_header_without_any_gives_none(facts_of):
    assert facts_of() == {}


@pytest.mark.parametrize(
    ("birth", "study", "age"),
    [
        pytest.param("19600315", "20200315", "060Y", id="birthday"),
        pytest.param("19600315", "20200314", "059Y", id="the day before"),
        pytest.param("19600229", "20210228", "060Y", id="born on a leap day"),
        pytest.param("20190601", "20200315", "000Y", id="baby"),
    ],
)
def test_the_age_at_the_study_follows_from_the_two_dates(facts_of, birth, study, age):
    assert facts_of(PatientBirthDate=birth, StudyDate=study) == {"AgeFromDates": age}


@pytest.mark.parametrize(
    ("birth", "study"),
    [("19600315", ""), ("", "20200315"), ("20210101", "20200315"), ("18500101", "20200315")],
)
def test_dates_that_tell_no_age_are_left_alone(facts_of, birth, study):
    assert facts_of(PatientBirthDate=birth, StudyDate=study) == {}


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_date_that_is_none_is_left_alone(facts_of):
    assert facts_of(PatientBirthDate="19601332", StudyDate="20200315") == {}


def test_an_age_that_is_written_goes_before_the_dates(facts_of):
    facts = facts_of(PatientAge="061Y", PatientBirthDate="19000101", StudyDate="20200315")
    assert facts == {"PatientAge": "061Y"}


def test_both_readers_give_them_and_no_date_of_birth(tmp_path):
    dates = {"PatientAge": "", "PatientBirthDate": "19600315", "StudyDate": "20200801", "PatientSize": "1.8"}
    (tmp_path / "ct").mkdir()
    for k, dataset in enumerate(synthetic_series()):
        for keyword, value in dates.items():
            setattr(dataset, keyword, value)
        write_file(tmp_path / "ct" / f"{k}.dcm", dataset)
    photograph = dicom_photograph()
    for keyword, value in dates.items():
        setattr(photograph, keyword, value)
    write_dicom_photograph(tmp_path / "photo.dcm", photograph)
    ct = CTReader().open(tmp_path / "ct")
    for header in (ct.header, PhotographReader().open(tmp_path / "photo.dcm").header):
        assert (header["AgeFromDates"], header["PatientSex"], header["PatientSize"]) == ("060Y", "F", "1.8")
        assert "19600315" not in str(header)
