"""One study through every door gives one answer: command line, a live MONAI Label server, MONAI Deploy.

Everything runs on the processor and at one stated moment, so that answers are equal to the byte.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
import pytest
from PIL import ExifTags, Image

from shared_nets.data.dicom_defects import DEFECTS, write_defect
from shared_nets.data.phantom import make_phantom, write_dicom_series, write_nifti
from shared_nets.data.photograph_defects import PHOTOGRAPH_DEFECTS, write_photograph_defect
from shared_nets.data.photograph_synthetic import VL_PHOTOGRAPH, dicom_photograph, write_dicom_photograph
from tests.bundles.drawn_lesions import drawn_lesion
from tests.tools.monailabel_app.live_server import Server, parts_of, running_server
from tools.bundle_rules import REPOSITORY
from tools.deploy_app.sdk import INSTALL, is_installed

KIDNEY, CKD, LESION = "kidney_ct_segmentation", "ckd_staging_classification", "mambaderm_classification"
#: Sound studies of each bundle, and the file that holds its mask, or else its picture.
SOUND = {
    (KIDNEY, "dicom"): "kidneys.seg.dcm",
    (KIDNEY, "nifti"): "kidneys.nii.gz",
    (KIDNEY, "repaired"): "kidneys.seg.dcm",
    (CKD, "dicom"): "kidneys.seg.dcm",
    (CKD, "nifti"): "kidneys.nii.gz",
    (LESION, "dicom"): "picture.png",
    (LESION, "png"): "picture.png",
    (LESION, "repaired"): "picture.png",
}
#: Defects that a bundle deals with: the rule for series takes one of the two.
DEALT_WITH = {"two series"}
MOMENT = "1767323045"
WOMAN = {"age": 65, "sex": "female"}

pytestmark = pytest.mark.xdist_group("monailabel")

Item = Mapping[str, Any]


class Answer(NamedTuple):
    """What a door says of a study.

    ``refusal`` holds code, message and remedy, ``files`` what the door gives of the files of a result.
    """

    result: dict[str, Any] | None
    refusal: dict[str, str] | None
    files: dict[str, bytes]

    @property
    def code(self) -> str | None:
        return None if self.refusal is None else self.refusal["code"]


#: Gives the answers on all studies of a bundle, by their names; every study is asked for once.
Door = Callable[[str], dict[str, Answer]]


@pytest.fixture(scope="module", autouse=True)
def one_moment_and_no_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", MOMENT)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> dict[str, dict[str, Item]]:
    """Studies of each bundle by their names: the sound ones, and every defect of the corpus."""
    folder = tmp_path_factory.mktemp("studies")
    phantom = make_phantom(right_ml=150.0, left_ml=130.0, shape=(48, 40, 24), spacing_mm=(5.0, 5.0, 5.0))
    write_dicom_series(phantom.hu, phantom.affine, folder / "ct")
    write_nifti(phantom.hu, phantom.affine, folder / "ct.nii.gz")
    lesion = drawn_lesion(height=300, width=400)
    Image.fromarray(lesion).save(folder / "photo.png")
    write_dicom_photograph(folder / "photo.dcm", dicom_photograph(lesion, sop_class=VL_PHOTOGRAPH))
    repaired = shutil.copytree(folder / "ct", folder / "ct_repaired")
    twice = pydicom.dcmread(next(repaired.iterdir()))
    twice.SOPInstanceUID = f"{twice.SOPInstanceUID}.1"
    twice.save_as(repaired / "twice.dcm")
    (repaired / "readme.txt").write_text("not an image")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(lesion[::-1, ::-1]).save(folder / "turned.png", exif=exif)
    scans = {"dicom": {"image": str(folder / "ct")}, "nifti": {"image": str(folder / "ct.nii.gz")}}
    found: dict[str, dict[str, Item]] = {
        KIDNEY: {**scans, "repaired": {"image": str(repaired)}},
        CKD: {name: {**scan, "clinical": WOMAN} for name, scan in scans.items()},
        LESION: {
            "dicom": {"image": str(folder / "photo.dcm")},
            "png": {"image": str(folder / "photo.png")},
            "repaired": {"image": str(folder / "turned.png")},
        },
    }
    for number, name in enumerate(DEFECTS):
        path = folder / f"series{number}"
        write_defect(name, path)
        found[KIDNEY][study_id("series", number)] = {"image": str(path)}
    for number, name in enumerate(PHOTOGRAPH_DEFECTS):
        _, path = write_photograph_defect(name, folder / f"photograph{number}")
        found[LESION][study_id("photograph", number)] = {"image": str(path)}
    return found


def study_id(kind: str, number: int) -> str:
    return f"{kind}_{number:02d}"


@pytest.fixture(scope="module")
def command_line(studies, tmp_path_factory) -> Door:
    """``python -m monai.bundle run``, one run a bundle."""

    @cache
    def ask(bundle: str) -> dict[str, Answer]:
        folder = tmp_path_factory.mktemp(bundle)
        datalist = folder / "datalist.json"
        datalist.write_text(json.dumps([{"study_id": n, **item} for n, item in studies[bundle].items()]))
        root = REPOSITORY / "bundles" / bundle
        done = subprocess.run(
            [
                *(sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(root)),
                *("--config_file", str(root / "configs" / "inference.json")),
                *("--datalist", str(datalist), "--output_dir", str(folder / "out")),
            ],
            cwd=folder,
            check=False,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode in (0, 3), done.stderr[-3000:]
        return {name: answer_in(folder / "out" / name) for name in studies[bundle]}

    return ask


def answer_in(folder: Path) -> Answer:
    """Read the files of one study."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if "refusal.json" in files:
        assert set(files) == {"refusal.json"}
        refusal = json.loads(files["refusal.json"])
        return Answer(None, {name: refusal[name] for name in ("code", "message", "remedy")}, {})
    return Answer(json.loads(files["result.json"]), None, files)


@pytest.fixture(scope="module")
def label(studies, tmp_path_factory) -> Iterator[Door]:
    """A live MONAI Label server."""
    if find_spec("monailabel") is None:
        pytest.skip("MONAI Label is not installed: make label")
    folder = tmp_path_factory.mktemp("label")
    (folder / "studies").mkdir()
    readable = Path(studies[KIDNEY]["dicom"]["image"]).parent
    with running_server(folder, "--readable", str(readable)) as server:

        @cache
        def ask(bundle: str) -> dict[str, Answer]:
            return {name: ask_label(server, bundle, name, **item) for name, item in studies[bundle].items()}

        yield ask


def ask_label(server: Server, bundle: str, name: str, *, image: str, **values: Any) -> Answer:
    file = SOUND.get((bundle, name), "")
    extension = {"kidneys.seg.dcm": ".dcm", "kidneys.nii.gz": ".nii.gz"}.get(file, ".png")
    params = json.dumps({"study_id": name, "result_extension": extension, **values})
    response = server.infer(bundle, image=image, params=params, output="all" if file else "json")
    if response.status_code == 422:
        return Answer(None, response.json()["detail"], {})
    assert response.status_code == 200, response.text
    if not file:
        return Answer(response.json()["result"], None, {})
    answer, content = parts_of(response)
    return Answer(answer["result"], None, {file: content})


#: Runs the application once for every line of arguments, and prints what it says of each refusal.
RUN_ALL = """
import contextlib, io, json, sys
from tools.deploy_app.__main__ import main
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(json.loads(line))
    if status not in (0, 3):
        sys.exit(said.getvalue())
    print(said.getvalue().splitlines()[-1] if status else "null")
"""


@pytest.fixture(scope="module")
def deploy(studies, tmp_path_factory) -> Door:
    """MONAI Deploy's application, which runs once a study, one process a bundle."""
    if not is_installed():
        pytest.skip(f"MONAI Deploy is not installed: {INSTALL}")

    @cache
    def ask(bundle: str) -> dict[str, Answer]:
        folder = tmp_path_factory.mktemp("deploy")
        lines = []
        for name, item in studies[bundle].items():
            given = item["image"]
            if "clinical" in item:  # lies beside the image
                image, given = Path(given), str(folder / name)
                (folder / name).mkdir()
                (folder / name / f"ct{''.join(image.suffixes)}").symlink_to(image)
                (folder / name / "clinical.json").write_text(json.dumps(item["clinical"]))
            arguments = ["-i", given, "-o", str(folder / "out"), "--bundle", bundle, "--study_id", name]
            lines.append(json.dumps(arguments))
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL],
            cwd=REPOSITORY,
            input="\n".join(lines),
            check=False,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr[-3000:]
        refusals = map(json.loads, done.stdout.splitlines())
        return {
            name: Answer(None, refusal, {}) if refusal else answer_in(folder / "out" / name)
            for name, refusal in zip(studies[bundle], refusals, strict=True)
        }

    return ask


@pytest.fixture(scope="module", params=["label", pytest.param("deploy", marks=pytest.mark.slow)])
def door(request) -> Door:
    """Every door but the command line, which the others are compared with."""
    given: Door = request.getfixturevalue(request.param)
    return given


@pytest.mark.parametrize(("model", "name"), SOUND)
def test_result_and_mask_are_those_of_the_command_line(door, command_line, model, name):
    got, expected = door(model)[name], command_line(model)[name]
    assert expected.result is not None
    assert got.result == expected.result
    file = SOUND[model, name]
    assert got.files[file] == expected.files[file]
    assert bool(expected.result["provenance"]["repairs"]) == (name == "repaired")


@pytest.mark.parametrize(
    ("model", "kind", "corpus"),
    [
        pytest.param(KIDNEY, "series", DEFECTS, id="series"),
        pytest.param(LESION, "photograph", PHOTOGRAPH_DEFECTS, id="photographs"),
    ],
)
def test_every_defect_gets_the_answer_of_the_command_line(door, command_line, model, kind, corpus):
    got, expected = door(model), command_line(model)
    names = {name: study_id(kind, number) for number, name in enumerate(corpus)}
    codes = {name: (got[study].code, expected[study].code) for name, study in names.items()}
    assert {name: pair for name, pair in codes.items() if pair[0] != pair[1]} == {}
    assert [name for name, study in names.items() if got[study].result != expected[study].result] == []
    stated = {name: defect.refusal for name, defect in corpus.items() if defect.refusal is not None}
    assert {name: codes[name][1] for name in stated.keys() - DEALT_WITH} == {
        name: code for name, code in stated.items() if name not in DEALT_WITH
    }
