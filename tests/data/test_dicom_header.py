import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from shared_nets.data.dicom_header import read_header, read_header_with_pydicom
from shared_nets.data.dicom_synthetic import enhanced_ct, synthetic_series, write_file


def nested(depth: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    if depth:
        item.ReferencedImageSequence = [nested(depth - 1), nested(0)]
        item["ReferencedImageSequence"].is_undefined_length = True
        item.is_undefined_length_sequence_item = True
    return item


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_the_fast_scan_reads_what_pydicom_reads(syntax, tmp_path):
    dataset = synthetic_series(1)[0]
    dataset.ReferencedImageSequence = [nested(3), nested(0)]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.add_new(0x00091001, "UN", b"private" * 1001)
    write_file(tmp_path / "a.dcm", dataset, syntax=syntax)
    path = str(tmp_path / "a.dcm")
    header = read_header(path)
    assert header == read_header_with_pydicom(path)
    assert header.texts("ImageType") == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert header.numbers("PixelSpacing") == (0.8, 0.8)
    assert header.integer("Rows") == 32


def test_a_header_longer_than_the_first_read_is_followed(tmp_path):
    dataset = synthetic_series(1)[0]
    dataset.add_new(0x00091001, "OB", bytes(100_000))
    write_file(tmp_path / "a.dcm", dataset)
    assert read_header(str(tmp_path / "a.dcm")) == read_header_with_pydicom(str(tmp_path / "a.dcm"))


def test_a_multi_frame_header_is_read(tmp_path):
    write_file(tmp_path / "a.dcm", enhanced_ct())
    header = read_header(str(tmp_path / "a.dcm"))
    assert header == read_header_with_pydicom(str(tmp_path / "a.dcm"))
    assert header.numbers("NumberOfFrames") == (12.0,)


@pytest.mark.parametrize("content", [b"", b"DICM", b"just some text " * 100], ids=["empty", "short", "text"])
def test_other_files_are_no_dicom(content, tmp_path):
    (tmp_path / "a.dcm").write_bytes(content)
    assert read_header(str(tmp_path / "a.dcm")) is None


@pytest.mark.parametrize("length", range(132, 700, 37))
def test_a_header_that_is_cut_off_is_never_taken_for_a_whole_one(length, tmp_path):
    write_file(tmp_path / "a.dcm", synthetic_series(1)[0])
    data = (tmp_path / "a.dcm").read_bytes()[:length]
    (tmp_path / "b.dcm").write_bytes(data)
    said = ""
    try:
        header = read_header(str(tmp_path / "b.dcm"))
    except ValueError as error:
        header, said = None, str(error)
    # cut between two elements, nothing shows but that there are no pixels
    assert said == "b.dcm ends inside its header" or (header is not None and header.pixel_offset is None)
