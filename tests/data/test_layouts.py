# SPDX-License-Identifier: Apache-2.0
"""Claims about published datasets: folders with their layouts and quirks, made of noise and ellipses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.data.cases import Case, CaseList
from bundle.data.check import check_dataset, list_dataset
from bundle.errors import InputError, UserError
from bundle.readers import read_mask
from bundle.readers.masks import fit_mask

SIZE = (24, 32)
GREEN, RED = (0, 255, 0), (255, 0, 0)


def _draw(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(grey).convert(mode).save(path)


def _draw_mask(path: Path, size: tuple[int, int] = SIZE, colour: Any = 255, empty: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    pixels = np.zeros((*size, 3) if isinstance(colour, tuple) else size, np.uint8)
    pixels[(y**2 + x**2 < 0.3) & (not empty)] = colour
    Image.fromarray(pixels).save(path)


def _xlsx(path: Path, rows: Sequence[Sequence[object]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    workbook.active.append(["Read me"])
    sheet = workbook.create_sheet("BrEaST-Lesions-USG clinical dat")
    for row in rows:
        sheet.append(list(row))
    workbook.save(path)


def _reasons(checked: CaseList) -> dict[str, str]:
    return {entry["path"]: entry["reason"] for entry in checked.skipped}


def _by_image(checked: CaseList) -> dict[str, Case]:
    return {case.image: case for case in checked.cases}


@pytest.fixture
def bus_bra(tmp_path: Path) -> Path:
    """Two patients, one with two views; then a stated size that is wrong, and rows and files that do not fit."""
    folder = tmp_path / "BUSBRA"
    names = ("0001-l", "0001-r", "0002-l", "0003-l", "0004-l", "0005-l", "0009-l")
    for seed, name in enumerate(names):
        _draw(folder / f"Images/bus_{name}.png", seed)
        if name != "0004-l":
            _draw_mask(folder / f"Masks/mask_{name}.png")
    _draw_mask(folder / "Masks/mask_0003-l.png", (24, 30))
    (folder / "bus_data.csv").write_text(
        "\ufeffID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX\n"
        'bus_0001-l,1,Cyst,Benign,2,GE,32,24,left,"[1, 2, 3, 4]"\n'
        'bus_0001-r,1,Cyst,benign,2,GE,32,25,right,"[1, 2, 3, 4]"\n'
        'bus_0002-l,2,Carcinoma,MALIGNANT,5,GE,32,24,left,"[1, 2, 3, 4]"\n'
        'bus_0003-l,3,Cyst,benign,2,GE,32,24,left,"[1, 2, 3, 4]"\n'
        'bus_0004-l,4,Cyst,benign,2,GE,32,24,left,"[1, 2, 3, 4]"\n'
        'bus_0005-l,5,Cyst,borderline,2,GE,32,24,left,"[1, 2, 3, 4]"\n'
        'bus_0006-l,6,Cyst,benign,2,GE,32,24,left,"[1, 2, 3, 4]"\n',
        encoding="utf-8",
    )
    (folder / "5-fold-cv.csv").write_text("ID,Pathology,kFold\nbus_0001-l,benign,3\nbus_0002-l,malignant,1\n")
    return folder


def test_bus_bra_takes_the_case_as_patient(bus_bra: Path) -> None:
    checked = check_dataset(bus_bra, skip_bad=True)
    found = {case.image: (case.masks, case.label, case.patient) for case in checked.cases}
    assert found == {
        "Images/bus_0001-l.png": (("Masks/mask_0001-l.png",), "benign", "1"),
        "Images/bus_0001-r.png": (("Masks/mask_0001-r.png",), "benign", "1"),
        "Images/bus_0002-l.png": (("Masks/mask_0002-l.png",), "malignant", "2"),
    }
    assert (checked.source, checked.synthetic) == ("bus-bra", False)
    assert checked.cases[2].details["fold"] == "1"
    assert checked.cases[0].details["birads"] == "2"


def test_bus_bra_names_what_does_not_fit(bus_bra: Path) -> None:
    reasons = _reasons(check_dataset(bus_bra, skip_bad=True))
    assert "24×30" in reasons.pop("Masks/mask_0003-l.png")
    assert "'mask_0004-l' is not in Masks" in reasons.pop("Images/bus_0004-l.png")
    assert "unknown class 'borderline'" in reasons.pop("bus_data.csv line 7")
    assert "'bus_0006-l' is not in Images" in reasons.pop("bus_data.csv line 8")
    assert "is not in bus_data.csv" in reasons.pop("Images/bus_0009-l.png")
    assert not reasons


def test_a_stated_size_that_the_pixels_deny_is_a_flag_that_can_be_left_out(bus_bra: Path) -> None:
    flags = {case.image: case.flags for case in check_dataset(bus_bra, skip_bad=True).cases}
    assert flags["Images/bus_0001-r.png"] == ("size-differs",)
    assert flags["Images/bus_0001-l.png"] == ()
    fewer = check_dataset(bus_bra, skip_bad=True, leave_out=["size-differs"])
    assert len(fewer.cases) == 2
    assert "left out by choice: size-differs" in _reasons(fewer)["Images/bus_0001-r.png"]


@pytest.fixture
def breast(tmp_path: Path) -> Path:
    """RGBA images; two tumours in one cell, another finding, a normal case, and rows that do not fit."""
    folder = tmp_path / "BrEaST-Lesions_USG-images_and_masks"
    for number in range(1, 7):
        _draw(folder / f"case00{number}.png", number, mode="RGBA")
    for name in ("case001_tumor", "case002_tumor1", "case002_tumor2", "case002_other1", "case006_tumor"):
        _draw_mask(folder / f"{name}.png")
    head = ("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Pixel_size", "Classification")
    _xlsx(
        tmp_path / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx",
        [
            head,
            (1, "case001.png", "case001_tumor.png", None, 0.0071, "benign"),
            (2.0, "case002.png", "case002_tumor1.png&case002_tumor2.png", "case002_other1.png", 0.0071, "Malignant"),
            (3, "case003.png", None, None, 7.1, "normal"),
            (4, "case004.png", "case004_tumor.png", None, 0.0071, "benign"),
            (5, "case005.png", None, None, 0.0071, "cyst"),
        ],
    )
    return folder


def test_breast_reads_its_workbook_and_rgba_images(breast: Path) -> None:
    checked = check_dataset(breast, skip_bad=True)
    found = {case.image: (case.masks, case.label, case.patient) for case in checked.cases}
    assert found == {
        "case001.png": (("case001_tumor.png",), "benign", "1"),
        "case002.png": (("case002_tumor1.png", "case002_tumor2.png"), "malignant", "2"),
        "case003.png": ((), "normal", "3"),
    }
    assert checked.source == "breast"
    assert checked.cases[0].details["pixel_size"] == "0.0071"


def test_breasts_pixel_size_is_centimetres(breast: Path) -> None:
    checked = check_dataset(breast, skip_bad=True)
    assert [case.details.get("spacing_mm") for case in checked.cases] == ["0.071", "0.071", None]


def test_breast_names_what_does_not_fit(breast: Path) -> None:
    reasons = _reasons(check_dataset(breast, skip_bad=True))
    table = "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx"
    assert "'case004_tumor.png' is not in the folder" in reasons.pop("case004.png")
    assert "unknown class 'cyst'" in reasons.pop(f"{table} line 6")
    assert f"is not in {table}" in reasons.pop("case006.png")
    assert not reasons


def test_breast_is_found_with_its_workbook_inside(breast: Path) -> None:
    # The folder above holds the workbook, and the images one level down.
    checked = check_dataset(breast.parent, skip_bad=True)
    assert "BrEaST-Lesions_USG-images_and_masks/case001.png" in _by_image(checked)


def test_another_dataset_beside_breasts_workbook_is_not_taken_for_it(breast: Path) -> None:
    other = breast.parent / "BUSI"
    _draw(other / "benign/benign (1).png")
    _draw_mask(other / "benign/benign (1)_mask.png")
    assert check_dataset(other).source == "busi"


def test_a_workbook_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "BrEaST-Lesions-USG-x.xlsx").write_bytes(b"no archive")
    with pytest.raises(InputError, match="no readable Excel workbook"):
        check_dataset(tmp_path)


def test_a_workbook_without_the_columns_tells_its_headers(tmp_path: Path) -> None:
    _xlsx(tmp_path / "BrEaST-Lesions-USG-x.xlsx", [("Case", "File")])
    with pytest.raises(InputError, match="no sheet has the column Image_filename; the headers are Read me; Case, File"):
        check_dataset(tmp_path)


@pytest.fixture
def bus_uclm(tmp_path: Path) -> Path:
    """A byte order mark, semicolons, coloured masks, flags, copies in another folder, and rows that do not fit."""
    masks = {"ALWI_000": GREEN, "ALWI_001": RED, "ANAT_000": None, "ANAT_001": RED, "ANAT_002": GREEN, "BO2_003": GREEN}
    for seed, (name, colour) in enumerate(masks.items()):
        _draw(tmp_path / f"images/{name}.PNG", seed, mode="RGB")
        _draw_mask(tmp_path / f"masks/{name}.png", colour=colour or GREEN, empty=colour is None)
    _draw(tmp_path / "partitions/test/images/ALWI_000.png", 0)
    (tmp_path / "INFO.csv").write_text(
        "Image;Resolution;Label ;Doppler;Marks;Combined\n"
        "ALWI_000.png;32x24;Benign;No;Yes;No\n"
        "ALWI_001.png;32x24;malignant;Yes;No;No\n"
        "ANAT_000.png;32x24;NORMAL;0;0;\n"
        "ANAT_001.png;32x24;Benign;0;0;0\n"
        "ANAT_002.png;32x24;Normal;0;0;0\n",
        encoding="utf-8-sig",
    )
    return tmp_path


def test_bus_uclm_takes_the_prefix_as_patient(bus_uclm: Path) -> None:
    checked = check_dataset(bus_uclm, skip_bad=True)
    found = {case.image: (case.label, case.patient, case.flags) for case in checked.cases}
    assert found == {
        "images/ALWI_000.PNG": ("benign", "ALWI", ("marks",)),
        "images/ALWI_001.PNG": ("malignant", "ALWI", ("doppler",)),
        "images/ANAT_000.PNG": ("normal", "ANAT", ()),
    }
    assert checked.source == "bus-uclm"


def test_bus_uclm_compares_the_colour_of_a_mask_with_the_class(bus_uclm: Path) -> None:
    reasons = _reasons(check_dataset(bus_uclm, skip_bad=True))
    assert reasons.pop("masks/ANAT_001.png") == "the mask is red (malignant), but INFO.csv says benign"
    assert "green (benign), but INFO.csv says normal" in reasons.pop("masks/ANAT_002.png")
    assert "is not in INFO.csv" in reasons.pop("images/BO2_003.PNG")
    assert not reasons


def test_flagged_images_can_be_left_out_without_calling_them_bad(bus_uclm: Path) -> None:
    for name in ("ANAT_001", "ANAT_002", "BO2_003"):
        (bus_uclm / f"images/{name}.PNG").unlink()
    text = (bus_uclm / "INFO.csv").read_text("utf-8-sig").splitlines()
    (bus_uclm / "INFO.csv").write_text("\n".join(text[:4]))
    checked = check_dataset(bus_uclm, leave_out=["doppler"])  # no skip_bad: a bad file would raise
    assert len(checked.cases) == 2
    assert _reasons(checked) == {"images/ALWI_001.PNG": "left out by choice: doppler"}


@pytest.fixture
def stu(tmp_path: Path) -> Path:
    """A mask of another size with a grey edge, one of another shape, and an image without a mask."""
    for number in (1, 2, 3, 10):
        _draw(tmp_path / f"Hospital/Test_Image_{number}.png", number)
    _draw_mask(tmp_path / "Hospital/mask_1.png")
    _draw_mask(tmp_path / "Hospital/mask_2.png", (48, 66))
    with Image.open(tmp_path / "Hospital/mask_2.png") as mask:
        grey = np.asarray(mask).copy()
    grey[0, :10] = 90
    Image.fromarray(grey).save(tmp_path / "Hospital/mask_2.png")
    _draw_mask(tmp_path / "Hospital/mask_3.png", (24, 64))
    _draw_mask(tmp_path / "Hospital/mask_11.png")
    return tmp_path


def test_stu_has_lesions_without_class_and_patient(stu: Path) -> None:
    checked = check_dataset(stu, skip_bad=True)
    assert [(case.image, case.label, case.patient) for case in checked.cases] == [
        ("Hospital/Test_Image_1.png", "unclassified", None),
        ("Hospital/Test_Image_2.png", "unclassified", None),
    ]
    assert [case.flags for case in checked.cases] == [(), ("mask-resized",)]
    assert checked.source == "stu"
    reasons = _reasons(checked)
    assert "another shape" in reasons.pop("Hospital/mask_3.png")
    assert "has no mask" in reasons.pop("Hospital/Test_Image_10.png")
    assert "has no image" in reasons.pop("Hospital/mask_11.png")
    assert not reasons


def test_a_mask_at_twice_the_size_comes_back_as_it_was(tmp_path: Path) -> None:
    _draw_mask(tmp_path / "mask.png", (40, 60))
    small = read_mask(tmp_path / "mask.png")
    large = np.kron(small, np.ones((2, 2), dtype=bool))
    assert (fit_mask("mask.png", large, small.shape) == small).mean() > 0.995


def test_a_mask_of_another_size_is_refused_in_every_other_layout(bus_bra: Path) -> None:
    with pytest.raises(UserError, match="the mask is 24×30, its image 24×32"):
        check_dataset(bus_bra)


def test_a_manifest_beside_the_published_table_has_the_last_word(bus_bra: Path) -> None:
    (bus_bra / "manifest.csv").write_text(
        "image,mask,label\nImages/bus_0001-l.png,Masks/mask_0001-l.png,unclassified\n"
    )
    source, listed, problems = list_dataset(bus_bra)
    assert (source, len(listed), problems) == ("manifest", 1, [])
    assert list_dataset(bus_bra, "bus-bra")[0] == "bus-bra"


@pytest.mark.parametrize(
    ("layout", "reason"),
    [("bus-bra", "no bus_data.csv"), ("breast", "no BrEaST"), ("bus-uclm", "no INFO.csv"), ("manifest", "cannot be")],
)
def test_a_layout_that_is_asked_for_but_not_there_is_told(tmp_path: Path, layout: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        list_dataset(tmp_path, layout)


def test_missing_columns_are_told_with_what_was_found(bus_bra: Path) -> None:
    (bus_bra / "bus_data.csv").write_text("id;case number;class\nbus_0001-l;1;benign\n")
    with pytest.raises(InputError, match="lacks the columns Case, Pathology; its header has id, case number, class"):
        list_dataset(bus_bra)
