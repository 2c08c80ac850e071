"""New DICOM objects are in the patient's study, dated by their making, and the same each time."""

from __future__ import annotations

import dataclasses
import io
import logging
import warnings
from datetime import UTC, datetime

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from shared_nets.data.dicom_synthetic import STUDY_UID, synthetic_series, write_series
from shared_nets.writers.dicom_object import long_string
from shared_nets.writers.dicom_seg import kidney_segmentation
from tests.writers.dicom_studies import CREATED, PROVENANCE, mask_on, objects_of, source_of


@pytest.fixture
def make(tmp_path):
    """Give ``make(objects={}, **attributes) -> Dataset``: a segmentation of such a series."""

    def write(objects=None, **attributes) -> Dataset:
        series = synthetic_series()
        for dataset in series:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)
        write_series(tmp_path / "ct", series)
        source = source_of(tmp_path / "ct")
        _, content = kidney_segmentation(mask_on(source), source, objects_of(source, **(objects or {})))
        return pydicom.dcmread(io.BytesIO(content))

    return write


def test_patient_and_study_are_those_of_the_source(make):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTABD", "99LOCAL", "CT abdomen"
    seg = make(
        StudyDate="20251231",
        StudyTime="235959.5",
        AccessionNumber="A-17",
        StudyID="7",
        StudyDescription="Abdomen",
        ReferringPhysicianName="Who^Doctor",
        PatientBirthDate="19640229",
        PatientWeight=81.5,
        IssuerOfPatientID="Hospital",
        ProcedureCodeSequence=[code],
    )
    assert seg.StudyInstanceUID == STUDY_UID
    assert (seg.PatientName, seg.PatientID, seg.PatientBirthDate) == (
        "Synthetic^Person",
        "SYNTHETIC-1",
        "19640229",
    )
    assert (seg.PatientSex, seg.PatientAge, seg.PatientWeight) == ("F", "061Y", 81.5)
    assert seg.IssuerOfPatientID == "Hospital"
    assert (seg.StudyDate, seg.StudyTime, seg.AccessionNumber) == ("20251231", "235959.5", "A-17")
    assert (seg.StudyID, seg.StudyDescription, seg.ReferringPhysicianName) == ("7", "Abdomen", "Who^Doctor")
    assert seg.ProcedureCodeSequence[0].CodeMeaning == "CT abdomen"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        pytest.param("ISO_IR 100", "Müller^Jürgen", id="latin"),
        pytest.param("ISO_IR 144", "Люкceмбypг", id="cyrillic"),
        pytest.param(["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", id="japanese"),
        pytest.param("GB18030", "Wang^XiaoDong=王^小东", id="chinese"),
    ],
)
def test_a_name_in_any_alphabet_is_carried_over(make, character_set, name):
    seg = make(SpecificCharacterSet=character_set, PatientName=name, StudyDescription="Bauch")
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert seg.PatientName == name
    assert seg.StudyDescription == "Bauch"


def test_text_inside_sequences_is_written_in_the_new_alphabet(make):
    request = Dataset()
    request.CodeValue, request.CodingSchemeDesignator, request.CodeMeaning = "N", "99LOCAL", "Nieren, früh"
    seg = make(SpecificCharacterSet="ISO_IR 100", ProcedureCodeSequence=[request])
    assert seg.ProcedureCodeSequence[0].CodeMeaning == "Nieren, früh"


def test_odd_values_are_carried_over_or_left_out_and_never_quoted(make, caplog):
    odd = {
        "PatientName": "A^B^C^D^E^F^Geheim\\Geheim",
        "PatientSex": "geheim",
        "PatientBirthDate": "Geheim",
        "PatientID": "Geheim" * 20,
        "StudyDate": "2020.GEHEIM",
    }
    with pydicom.config.disable_value_validation(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with caplog.at_level(logging.DEBUG):
            seg = make(**odd)
        assert seg.PatientID == "Geheim" * 20
        assert seg.PatientSex == "geheim"
    assert "geheim" not in caplog.text.lower()
    assert "geheim" not in " ".join(str(warning.message) for warning in caught).lower()


def test_a_value_that_cannot_be_understood_is_left_out(make, tmp_path):
    make()
    path = tmp_path / "ct" / "IM0001.dcm"
    dataset = pydicom.dcmread(path)
    dataset.add_new("PatientWeight", "LO", "heavy")  # a weight is a number …
    dataset.add_new("IssuerOfPatientIDQualifiersSequence", "OB", b"\x08\x00")  # … and this no sequence
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    source = source_of(tmp_path / "ct")
    written = kidney_segmentation(mask_on(source), source, objects_of(source))
    seg = pydicom.dcmread(io.BytesIO(written[1]))
    assert seg.PatientName == "Synthetic^Person"
    assert "IssuerOfPatientIDQualifiersSequence" not in seg


def test_dates_are_those_of_the_making(make):
    seg = make()
    for date, time in (
        (seg.InstanceCreationDate, seg.InstanceCreationTime),
        (seg.SeriesDate, seg.SeriesTime),
        (seg.ContentDate, seg.ContentTime),
    ):
        assert (date, time) == ("20260102", "030405")
    assert [
        item.ContributionDateTime
        for item in seg.ContributingEquipmentSequence
        if "ContributionDateTime" in item
    ] == ["20260102030405+0100"]
    assert "TimezoneOffsetFromUTC" not in seg


@pytest.mark.parametrize(
    ("offset", "date", "time"),
    [("+0000", "20260102", "020405"), ("-0330", "20260101", "223405"), ("+0545", "20260102", "074905")],
)
def test_dates_are_in_the_time_zone_that_the_source_names(make, offset, date, time):
    seg = make(TimezoneOffsetFromUTC=offset)
    assert seg.TimezoneOffsetFromUTC == offset
    assert (seg.ContentDate, seg.ContentTime) == (date, time)


@pytest.mark.parametrize("offset", ["0100", "+1", "+99999", "+9900", "noon"])
def test_a_time_zone_that_is_none_is_not_carried_over(make, offset):
    with pydicom.config.disable_value_validation():
        seg = make(TimezoneOffsetFromUTC=offset)
    assert "TimezoneOffsetFromUTC" not in seg
    assert seg.ContentTime == "030405"


def test_the_series_is_of_its_own_and_says_what_made_it(make):
    seg = make()
    assert (seg.SeriesNumber, seg.InstanceNumber, seg.Modality) == (9001, 1, "SEG")
    assert seg.SeriesDescription == "Kidneys, AI segmentation (research only)"
    assert (seg.Manufacturer, seg.ManufacturerModelName) == ("shared_nets", "kidney_ct_segmentation")
    assert (seg.SoftwareVersions, seg.ContentLabel) == ("0.1.0", "KIDNEYS")
    assert len(seg.DeviceSerialNumber) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"created": datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)},
        {"provenance": dataclasses.replace(PROVENANCE, weights_sha256={"model": "c" * 64})},
        {"provenance": dataclasses.replace(PROVENANCE, config_sha256="c" * 64)},
        {"provenance": dataclasses.replace(PROVENANCE, bundle_version="0.2.0")},
        {"provenance": dataclasses.replace(PROVENANCE, bundle="other")},
    ],
    ids=["moment", "weights", "config", "version", "bundle"],
)
def test_another_making_is_another_object(make, changes):
    first, second = make(), make(changes)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SegmentSequence[0].TrackingUID != second.SegmentSequence[0].TrackingUID


def test_every_uid_is_derived_and_valid(make):
    assert make() == make()
    uids = [
        element.value for element in make().iterall() if element.VR == "UI" and isinstance(element.value, str)
    ]
    assert len(uids) > 20
    assert all(uid.is_valid for uid in uids)


def test_long_texts_fit_a_dicom_line():
    assert long_string("a\\b\n c") == "a/b c"
    assert len(long_string("x" * 65)) == 64
    assert long_string("x" * 64) == "x" * 64
    assert CREATED.tzinfo is not None
