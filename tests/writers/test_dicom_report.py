"""A result as DICOM Structured Report says every number, with unit and interval, of the kidney it is of."""

from __future__ import annotations

import io

import pydicom
import pytest
from highdicom.sr import srread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from shared_nets.data.dicom_synthetic import enhanced_ct, write_file
from shared_nets.writers.dicom_report import structured_report
from shared_nets.writers.dicom_seg import kidney_segmentation
from tests.writers.dicom_studies import (
    LEFT,
    RIGHT,
    STATEMENT,
    ckd_result,
    errors_of,
    kidney_result,
    mask_on,
    objects_of,
    source_of,
    text_of,
    write_phantom,
)

CREATININE = Code("2160-0", "LN", "")
EGFR = Code("98979-8", "LN", "")


@pytest.fixture
def report(tmp_path):
    """Give ``report(result, labels=(1, 2)) -> (report, segmentation, path)``; no labels: no mask."""
    folder = write_phantom(tmp_path / "ct")

    def write(result, labels=(1, 2), folder=folder):
        source = source_of(folder)
        objects = objects_of(source)
        written = kidney_segmentation(mask_on(source, labels=labels), source, objects)
        content = structured_report(result, None if written is None else written[0], objects)
        path = tmp_path / "report.sr.dcm"
        path.write_bytes(content)
        segmentation = None if written is None else pydicom.dcmread(io.BytesIO(written[1]))
        return srread(path), segmentation, path

    return write


def values_of(group) -> dict[str, tuple[float, str]]:
    return {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}


def kidney_group(document, segmentation, code):
    number = next(
        segment.SegmentNumber
        for segment in segmentation.SegmentSequence
        if segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == code
    )
    (group,) = [
        group
        for group in document.content.get_volumetric_roi_measurement_groups()
        if group.referenced_segment.referenced_segment_numbers == [number]
    ]
    assert group.finding_type.value == code
    assert group.finding_sites[0].value.value == code
    assert group.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    assert group.tracking_uid == segmentation.SegmentSequence[number - 1].TrackingUID
    return group


@pytest.mark.parametrize("labels", [(1, 2), ()], ids=["mask", "no mask"])
@pytest.mark.parametrize("result", [ckd_result(), kidney_result()], ids=["stage", "sizes"])
def test_the_validator_finds_no_error(report, result, labels):
    _, _, path = report(result, labels)
    assert errors_of(path) == []


def test_dcmtk_reads_every_number_of_a_stage_aloud(report):
    _, _, path = report(ckd_result())
    text = text_of(path)
    for line in (
        '"Creatinine [Mass/volume] in Serum or Plasma")="1.35" (mg/dL,UCUM,"mg/dL")',
        '"Lower end of prediction interval")="0.95" (mg/dL,UCUM,"mg/dL")',
        '"Upper end of prediction interval")="1.9" (mg/dL,UCUM,"mg/dL")',
        '"Coverage of prediction interval")="90.0" (%,UCUM,"Percent")',
        '"GFR/1.73 sq M predicted, creatinine-based (CKD-EPI 2021)")="54.2" (mL/min/{1.73_m2},UCUM,',
        '"Lower end of prediction interval")="36.1"',
        '"Upper end of prediction interval")="81.9"',
        '(from_ct,99SHARED_NETS,"Estimated from CT by software, not measured in blood")',
        '"KDIGO GFR category of the estimate")=(G3a,99SHARED_NETS,"KDIGO GFR category G3a")',
        '"Probability of KDIGO GFR category G3a")="0.5"',
        '"Probability of KDIGO GFR category G5")="0.0"',
        '"Volume")="131.5" (mL,UCUM,"mL")',
        '"Length")="101.5" (mm,UCUM,"mm")',
        '"Volume")="287.75" (mL,UCUM,"mL")',
        '"Volume")="12.5" (mL,UCUM,"mL")',
        '"Notice")="Research use only. Not a medical device. Not for diagnosis or treatment.">',
        '"Warning")="The left kidney reaches the lowest slice, 50 mm² of it. (KIDNEY_CUT_OFF)">',
        f'"Limitation")="{STATEMENT}">',
        '"Device Observer Name")="kidney_ct_segmentation 0.1.0">',
        "Completion Flag     : COMPLETE",
        "Verification Flag   : UNVERIFIED",
        "Preliminary Flag    : PRELIMINARY",
    ):
        assert line in text


def test_dcmtk_reads_every_number_of_the_sizes_aloud(report):
    _, _, path = report(kidney_result())
    text = text_of(path)
    for line in (
        '"151.25" (mL,',
        '"108.0" (mm,',
        '"142.5" ([hnsf\'U],',
        '"163.5" (mL,',
        '"112.5" (mm,',
        '"314.75"',
    ):
        assert line in text
    assert "Creatinine" not in text


def test_sizes_of_a_kidney_refer_to_its_segment(report):
    document, segmentation, _ = report(kidney_result())
    right, left = (kidney_group(document, segmentation, code) for code in (RIGHT, LEFT))
    assert values_of(right) == {
        "Volume": (151.25, "mL"),
        "Length": (108.0, "mm"),
        "Mean Attenuation Coefficient": (142.5, "[hnsf'U]"),
    }
    assert values_of(left) == {"Volume": (163.5, "mL"), "Length": (112.5, "mm")}
    question = Code("is_cut_off", "99SHARED_NETS", "")
    is_cut_off = [g.get_qualitative_evaluations(question)[0].value.meaning for g in (right, left)]
    assert is_cut_off == ["No", "Yes"]


def test_sizes_in_a_stage_say_that_they_leave_lesions_out(report):
    document, segmentation, _ = report(ckd_result())
    (volume,) = kidney_group(document, segmentation, LEFT).get_measurements()  # its length is not known
    assert volume.value == 156.25
    assert volume.method.meaning == "Kidney without tumours and cysts"


def test_a_kidney_that_only_the_result_knows_is_reported_without_a_segment(report):
    document, _, _ = report(kidney_result(), labels=(2,))
    assert len(document.content.get_volumetric_roi_measurement_groups()) == 1
    groups = document.content.get_image_measurement_groups()
    assert {group.tracking_identifier: values_of(group)["Volume"][0] for group in groups} == {
        "Right kidney": 151.25,
        "Kidneys": 314.75,
    }


def test_a_result_without_kidneys_still_reports(report):
    document, _, path = report(kidney_result(kidneys={}, total_volume_ml=0.0), labels=())
    (group,) = document.content.get_image_measurement_groups()
    assert values_of(group) == {"Volume": (0.0, "mL")}
    assert errors_of(path) == []


def test_a_network_that_only_classifies_reports_the_category_alone(report):
    document, _, path = report(ckd_result(creatinine=None, egfr=None))
    (group,) = [
        group
        for group in document.content.get_image_measurement_groups()
        if group.tracking_identifier == "Kidney function"
    ]
    assert group.get_measurements(name=CREATININE) == group.get_measurements(name=EGFR) == []
    assert group.get_qualitative_evaluations()[0].value.value == "G3a"
    assert errors_of(path) == []


def test_the_stage_names_the_slices_it_was_read_off(report, tmp_path):
    document, _, _ = report(ckd_result())
    (group,) = [
        group
        for group in document.content.get_image_measurement_groups()
        if group.tracking_identifier == "Kidney function"
    ]
    files = source_of(tmp_path / "ct").files
    expected = [pydicom.dcmread(files[k]).SOPInstanceUID for k in (3, 7)]  # the third only fills up
    assert [image.referenced_sop_instance_uid for image in group.source_images] == expected


def test_frames_of_a_multi_frame_image_are_named_by_number(report, tmp_path):
    (tmp_path / "enhanced").mkdir()
    write_file(tmp_path / "enhanced" / "ct.dcm", enhanced_ct(order=[11, *range(11)]))
    document, _, path = report(ckd_result(), folder=tmp_path / "enhanced")
    (group,) = [
        group
        for group in document.content.get_image_measurement_groups()
        if group.tracking_identifier == "Kidney function"
    ]
    assert [image.referenced_frame_numbers for image in group.source_images] == [[5], [9]]  # k = 3 and 7
    assert errors_of(path) == []


def test_all_source_images_are_listed_once(report, tmp_path):
    document, segmentation, _ = report(ckd_result())
    (library,) = [
        c for c in document.ContentSequence if c.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    ]
    listed = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in library.ContentSequence[0].ContentSequence
        if item.ValueType == "IMAGE"
    ]
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in source_of(tmp_path / "ct").files]
    assert listed == uids
    evidence = {uid for _, _, uid, _ in document.get_evidence()}
    assert evidence == {*uids, segmentation.SOPInstanceUID}


def test_an_estimate_in_another_unit_is_an_error(report):
    wrong = ckd_result(creatinine=ckd_result().egfr)
    with pytest.raises(ValueError, match=r"unit of Creatinine .* must be mg/dL, got mL/min"):
        report(wrong)


def test_the_template_is_a_measurement_report(report):
    document, _, _ = report(ckd_result())
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert document.ConceptNameCodeSequence[0].CodeValue == codes.DCM.ImagingMeasurementReport.value
    assert document.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99SHARED_NETS"
