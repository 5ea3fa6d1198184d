# SPDX-License-Identifier: Apache-2.0
"""Claims about NIfTI as converters really write it: the files are made by SimpleITK and dcm2niix in the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from fabricate import PLACED, region, regions, save, save_nifti, speckle, ultrasound
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from bundle.errors import InputError
from bundle.readers import count_frames, is_upside_down, read_image, read_mask
from bundle.transforms import ForMonaiLabeld, LoadLesionMaskd, LoadUltrasoundd

GREY = speckle()
DOPPLER = np.repeat(GREY[..., None], 3, axis=2)
DOPPLER[20:35, 30:60] = (200, 40, 10)
LUMA = np.asarray(Image.fromarray(DOPPLER).convert("L"))
SPACING = {"PixelSpacing": [0.08, 0.12]}
COLOUR = {
    "RGB": ultrasound(DOPPLER, "RGB", **SPACING),
    "YBR": ultrasound(DOPPLER, "YBR_FULL", **SPACING),
    "JPEG": ultrasound(DOPPLER, "YBR_FULL_422", JPEGBaseline8Bit, **SPACING),
}


def by_simpleitk(dataset: Any, folder: Path) -> Path:
    """Convert as MONAI Label does with what comes from an archive."""
    image = SimpleITK.ReadImage(str(save(dataset, folder / "in" / "a.dcm")))
    SimpleITK.WriteImage(image, str(folder / "itk.nii.gz"))
    return folder / "itk.nii.gz"


def by_dcm2niix(dataset: Any, folder: Path, *options: str) -> Path:
    """Convert with dcm2niix's defaults, but without its JSON."""
    save(dataset, folder / "in" / "a.dcm")
    tool = Path(sys.executable).with_name("dcm2niix")
    words = [tool, "-b", "n", "-z", "y", "-f", "d2n", *options, "-o", folder, folder / "in"]
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)
    return next(folder.glob("d2n*.nii.gz"))


@pytest.mark.parametrize("kind", COLOUR)
@pytest.mark.parametrize("convert", [by_simpleitk, by_dcm2niix])
def test_a_colour_image_is_one_picture_and_not_three_frames(tmp_path: Path, convert: Any, kind: str) -> None:
    file = convert(COLOUR[kind], tmp_path)
    image = read_image(file)
    assert (image.frame, image.frames, count_frames(file)) == (None, 1, 1)
    atol = {"RGB": 0, "YBR": 2, "JPEG": 40}[kind]
    assert np.abs(image.pixels - LUMA).max() <= atol
    assert np.abs(image.pixels - LUMA).mean() < 3
    assert image.spacing_mm == pytest.approx((0.08, 0.12))
    assert any("coloured" in note for note in image.warnings)


def test_a_palette_image_by_simpleitk_is_its_colours(tmp_path: Path) -> None:
    falling = (np.arange(255, -1, -1, dtype="<u2") * 257).tobytes()
    tables = {f"{colour}PaletteColorLookupTableData": falling for colour in ("Red", "Green", "Blue")}
    file = by_simpleitk(ultrasound(GREY, "PALETTE COLOR", **tables), tmp_path)
    np.testing.assert_allclose(read_image(file).pixels, 255.0 - GREY, atol=1)


@pytest.mark.parametrize("convert", [by_simpleitk, by_dcm2niix])
@pytest.mark.parametrize("is_colour", [False, True])
def test_the_frames_of_a_cine_stay_frames(tmp_path: Path, convert: Any, is_colour: bool) -> None:
    frames = [speckle(seed=seed) for seed in range(3)]
    stored = [np.repeat(frame[..., None], 3, axis=2) for frame in frames] if is_colour else frames
    file = convert(ultrasound(stored, "RGB" if is_colour else "MONOCHROME2"), tmp_path)
    assert count_frames(file) == 3
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(read_image(file, number).pixels, frame)


@pytest.mark.parametrize(
    "elements",
    [{}, SPACING, {"SequenceOfUltrasoundRegions": regions(region(0, 0, 60, 80))}, PLACED],
    ids=["plain", "mm", "us", "placed"],
)
def test_what_dcm2niix_writes_upside_down_is_turned_back_and_told(tmp_path: Path, elements: dict[str, Any]) -> None:
    file = by_dcm2niix(ultrasound(GREY, **elements), tmp_path)
    stored = np.asanyarray(nibabel.load(file).dataobj)[..., 0].T
    np.testing.assert_array_equal(stored, GREY[::-1])  # else the test proves nothing
    image = read_image(file)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert "upside down" in image.warnings[0]


def test_a_picture_whose_orientation_was_changed_is_refused(tmp_path: Path) -> None:
    image = nibabel.load(by_simpleitk(ultrasound(GREY), tmp_path))
    nibabel.save(nibabel.as_closest_canonical(image), tmp_path / "ras.nii.gz")
    with pytest.raises(InputError, match="run from right to left"):
        read_image(tmp_path / "ras.nii.gz")


def test_dcm2niix_without_the_flip_is_left_as_it_is(tmp_path: Path) -> None:
    file = by_dcm2niix(ultrasound(GREY), tmp_path, "-y", "n")
    np.testing.assert_array_equal(read_image(file).pixels, GREY)
    assert not is_upside_down(str(file))


def test_twelve_bits_of_dcm2niix_are_not_dark(tmp_path: Path) -> None:
    file = by_dcm2niix(ultrasound(GREY.astype(np.uint16) * 16, BitsStored=12, HighBit=11), tmp_path)
    np.testing.assert_allclose(read_image(file).pixels, GREY, atol=1)


def test_a_mask_drawn_on_an_upside_down_file_is_turned_as_its_image(tmp_path: Path) -> None:
    lesion = np.zeros(GREY.shape, dtype=bool)
    lesion[5:20, 10:30] = True
    image = by_dcm2niix(ultrasound(GREY, **SPACING), tmp_path)
    source = nibabel.load(image)
    stored = np.ascontiguousarray(lesion[::-1].astype(np.uint8).T[..., None])
    nibabel.save(nibabel.Nifti1Image(stored, source.affine), tmp_path / "code.nii.gz")  # as ITK-SNAP, with codes
    nibabel.save(nibabel.Nifti1Image(stored, None, source.header), tmp_path / "header.nii.gz")
    for mask in ("code.nii.gz", "header.nii.gz"):
        np.testing.assert_array_equal(read_mask(tmp_path / mask, image), lesion)
    record = LoadLesionMaskd("label")(LoadUltrasoundd("image")({"image": image, "label": tmp_path / "code.nii.gz"}))
    np.testing.assert_array_equal(record["label"][0].numpy() > 0, lesion)


def test_a_mask_for_monai_label_lies_over_the_file_as_it_is_stored(tmp_path: Path) -> None:
    image = by_dcm2niix(ultrasound(GREY), tmp_path)
    lesion = torch.zeros(1, 60, 80)
    lesion[:, 5:20, 10:30] = 1
    item = {"image": MetaTensor(torch.zeros(1, 60, 80)), "image_path": str(image), "pred": lesion}
    written = np.asarray(ForMonaiLabeld("pred")(item)["pred"])[..., 0].T
    np.testing.assert_array_equal(written[::-1], lesion[0].numpy())


@pytest.mark.parametrize("name", ["grey.png", "colour.png", "alpha.png"])
def test_pictures_by_simpleitk_read_as_themselves(tmp_path: Path, name: str) -> None:
    picture = {"grey.png": GREY, "colour.png": DOPPLER, "alpha.png": np.dstack([DOPPLER, GREY])}[name]
    Image.fromarray(picture).save(tmp_path / name)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / name)), str(tmp_path / "a.nii"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").pixels, read_image(tmp_path / name).pixels)


@pytest.mark.parametrize("picture", [np.repeat(GREY[..., None], 3, axis=2), DOPPLER, np.dstack([DOPPLER, GREY | 255])])
def test_colours_as_the_last_axis_are_one_picture(tmp_path: Path, picture: np.ndarray) -> None:
    for stored in (picture.swapaxes(0, 1), picture.swapaxes(0, 1)[:, :, None]):
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), np.eye(4)), tmp_path / "a.nii.gz")
        assert count_frames(tmp_path / "a.nii.gz") == 1
        expected = LUMA if (picture[..., 0] != picture[..., 1]).any() else GREY
        np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").pixels, expected)


def test_three_slices_that_may_be_colours_or_frames_are_refused(tmp_path: Path) -> None:
    half = [np.where(np.arange(80) < 50, GREY, speckle(seed=seed)).astype(np.uint8) for seed in range(3)]
    with pytest.raises(InputError, match="it is not told if they are colours"):
        read_image(save_nifti(np.stack(half), tmp_path / "a.nii.gz"), 0)


def test_three_slices_of_a_mask_are_slices(tmp_path: Path) -> None:
    masks = np.zeros((3, *GREY.shape), np.uint8)
    for number in range(3):
        masks[number, 10:40, 10 : 40 + number] = 1
    path = save_nifti(masks, tmp_path / "m.nii.gz")
    for number in range(3):
        np.testing.assert_array_equal(read_mask(f"{path}[{number}]"), masks[number] > 0)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_of_length_one_before_the_rows_is_passed_over(tmp_path: Path, axis: int) -> None:
    affine = np.diag([0.3, 0.12, 0.08, 1.0]) if axis == 0 else np.diag([0.12, 0.3, 0.08, 1.0])
    image = nibabel.Nifti1Image(np.expand_dims(GREY.T, axis), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")
    read = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read.pixels, GREY)
    assert read.spacing_mm == pytest.approx((0.08, 0.12))
    assert "axis of length 1" in read.warnings[0]


def test_colours_as_the_first_axis_are_refused(tmp_path: Path) -> None:
    stored = np.moveaxis(DOPPLER, -1, 0).swapaxes(1, 2)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="columns are expected first"):
        read_image(tmp_path / "a.nii.gz", 0)


def test_frames_before_the_columns_are_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.stack([speckle(200, 210).T] * 20), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match="columns are expected first"):
        read_image(tmp_path / "a.nii", 0)


def test_a_fourth_frame_is_not_taken_for_opacity(tmp_path: Path) -> None:
    still = [GREY[::-1].copy()] * 3
    with pytest.raises(InputError, match="not told if they are colours"):
        read_image(save_nifti(np.stack([*still, GREY]), tmp_path / "a.nii"))
    opaque = save_nifti(np.stack([GREY, GREY, GREY, np.full_like(GREY, 255)]), tmp_path / "b.nii")
    np.testing.assert_array_equal(read_image(opaque).pixels, GREY)


def test_vectors_that_are_no_colours_are_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((80, 60, 1, 1, 2), np.uint8), np.eye(4))
    image.header.set_intent("vector")
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="2 values in each pixel"):
        read_image(tmp_path / "a.nii.gz")


def test_a_label_map_of_two_segments_is_one_lesion(tmp_path: Path) -> None:
    labels = np.zeros(GREY.shape, np.uint8)
    labels[5:20, 5:20], labels[5:20, 40:60] = 1, 2
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(tmp_path / "m.nii.gz"))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz"), labels > 0)


def test_plain_files_are_left_alone(tmp_path: Path) -> None:
    for convert, dataset in ((by_simpleitk, ultrasound(GREY, syntax=ExplicitVRLittleEndian)),):
        image = read_image(convert(dataset, tmp_path))
        np.testing.assert_array_equal(image.pixels, GREY)
        assert image.warnings == ()
