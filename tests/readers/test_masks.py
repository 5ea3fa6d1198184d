# SPDX-License-Identifier: Apache-2.0
"""Claims about what of a mask is lesion: every label of a label map, soft masks as ever, the rest refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import save_nifti, speckle
from PIL import Image, ImageFilter

from bundle.errors import InputError
from bundle.readers import read_mask
from bundle.readers.masks import MaskWarning
from bundle.transforms import LoadLesionMaskd

SHAPE = (60, 80)


def _areas(*values: float, dtype: Any = np.uint8) -> np.ndarray:
    """One area of each value, side by side on 0."""
    mask = np.zeros(SHAPE, dtype=dtype)
    for number, value in enumerate(values):
        mask[10:40, 4 * number + 2 : 4 * number + 5] = value
    return mask


def _write(values: np.ndarray, folder: Path) -> list[Path]:
    """The mask in each format that holds its values."""
    files = [save_nifti(values, folder / "m.nii.gz"), save_nifti(values.astype(np.float32), folder / "f.nii.gz")]
    if values.dtype == np.uint8:
        for name in ("m.png", "m.bmp", "m.tif"):
            Image.fromarray(values).save(folder / name)
            files.append(folder / name)
        Image.fromarray(np.repeat(values[..., None], 3, axis=2)).save(folder / "rgb.png")
        files.append(folder / "rgb.png")
    Image.fromarray(values.astype(np.uint16)).save(folder / "deep.png")
    return [*files, folder / "deep.png"]


@pytest.mark.parametrize("labels", [(1,), (1, 2), (1, 2, 3), (2, 7), tuple(range(1, 16)), (255,), (128,), (40,)])
def test_every_label_is_lesion_in_every_format(tmp_path: Path, labels: tuple[int, ...]) -> None:
    values = _areas(*labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MaskWarning)
        for file in _write(values, tmp_path):
            np.testing.assert_array_equal(read_mask(file), values > 0, err_msg=file.name)


@pytest.mark.parametrize("labels", [(1, 255), (1, 2, 255), (*range(1, 16), 255)])
def test_255_beside_labels_is_lesion_with_a_warning(tmp_path: Path, labels: tuple[int, ...]) -> None:
    values = _areas(*labels)
    values[0, 0] = 255
    for file in _write(values, tmp_path):
        with pytest.warns(MaskWarning, match=rf"{file.name}: the mask holds 255 beside"):
            np.testing.assert_array_equal(read_mask(file), values > 0)


@pytest.mark.parametrize("labels", [(50, 100), (100, 200, 250), (1, 40), (127, 255), tuple(range(1, 19)), (16, 255)])
def test_areas_of_other_values_are_refused_by_their_values(tmp_path: Path, labels: tuple[int, ...]) -> None:
    for file in _write(_areas(*labels), tmp_path):
        with pytest.raises(InputError, match=rf"{file.name}: the mask holds the values 0, {labels[0]}, {labels[1]}"):
            read_mask(file)


def test_negative_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="negative"):
        read_mask(save_nifti(_areas(1, -1, dtype=np.int16), tmp_path / "m.nii.gz"))


@pytest.mark.parametrize("method", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BOX])
@pytest.mark.parametrize("size", [(40, 30), (93, 71), (320, 240)])
def test_soft_edges_stay_half_of_the_maximum(tmp_path: Path, method: Any, size: tuple[int, int]) -> None:
    disc = np.hypot(*(np.mgrid[:60, :80] - np.array([30, 40])[:, None, None])) < 18
    picture = Image.fromarray(disc.astype(np.uint8) * 255).resize(size, method)
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.asarray(picture) > 127)


def test_blurred_masks_and_probabilities_stay_half_of_the_maximum(tmp_path: Path) -> None:
    disc = np.hypot(*(np.mgrid[:60, :80] - np.array([30, 40])[:, None, None])) < 18
    blurred = Image.fromarray(disc.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(6))
    blurred.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.asarray(blurred) > np.asarray(blurred).max() / 2)
    fractions = np.asarray(blurred, np.float32) / 300
    np.testing.assert_array_equal(
        read_mask(save_nifti(fractions, tmp_path / "m.nii.gz")), fractions > fractions.max() / 2
    )


def test_a_jpeg_that_became_a_png_is_half_of_the_maximum(tmp_path: Path) -> None:
    Image.fromarray(_areas(255, 0, 255, 255)).save(tmp_path / "m.jpg", quality=80)
    decoded = np.asarray(Image.open(tmp_path / "m.jpg"))
    Image.fromarray(decoded).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), decoded > decoded.max() / 2)


def test_every_colour_of_a_palette_is_lesion(tmp_path: Path) -> None:
    """The palette of PASCAL VOC, with which many tools write label maps: label 8 is darker than half of label 1."""
    labels = _areas(1, 2, 8, 15)
    picture = Image.fromarray(labels, mode="P")
    colours = [[0, 0, 0]] * 256
    colours[1], colours[2], colours[8], colours[15] = [128, 0, 0], [0, 128, 0], [64, 0, 0], [192, 128, 128]
    picture.putpalette([value for colour in colours for value in colour])
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels > 0)


def test_colours_without_a_black_background_are_refused(tmp_path: Path) -> None:
    colours = np.full((*SHAPE, 3), 255, dtype=np.uint8)
    colours[10:40, 10:40] = (255, 0, 0)
    Image.fromarray(colours).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="#ff0000, #ffffff and none is black"):
        read_mask(tmp_path / "m.png")


def test_training_sees_every_label(tmp_path: Path) -> None:
    values = _areas(1, 2)
    Image.fromarray(values).save(tmp_path / "m.png")
    loaded = LoadLesionMaskd("label")({"label": tmp_path / "m.png"})["label"]
    np.testing.assert_array_equal(loaded[0].numpy() > 0, values > 0)


def test_a_picture_given_for_a_mask_is_refused(tmp_path: Path) -> None:
    """Itself, with an outline drawn on it, or with all but the lesion made black: above half of it lie many parts."""
    grey = speckle(120, 160)
    inside = np.hypot(*(np.mgrid[:120, :160] - np.array([60, 80])[:, None, None])) < 45
    drawn = np.repeat(grey[..., None], 3, axis=2)
    drawn[60:62, 20:140] = (255, 0, 0)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "a.jpg")
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    Image.fromarray(grey * inside.astype(np.uint8)).save(tmp_path / "cut.png")
    nifti = save_nifti(grey, tmp_path / "a.nii.gz")
    for file in (nifti, *(tmp_path / name for name in ("a.png", "a.jpg", "drawn.png", "cut.png"))):
        with pytest.raises(InputError, match="is a picture and no mask"):
            read_mask(file)


@pytest.mark.parametrize("offset", [1, 3])
def test_labels_without_a_background_are_refused(tmp_path: Path, offset: int) -> None:
    for file in _write(_areas(1) + np.uint8(offset), tmp_path):
        with pytest.raises(InputError, match=f"holds the values {offset}, {offset + 1} and no 0"):
            read_mask(file)


def test_a_label_that_covers_next_to_everything_is_told(tmp_path: Path) -> None:
    """Classes of all the tissue, of which the highest alone is the lesion."""
    values = _areas(3)
    values[3:][values[3:] == 0] = 1
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.warns(MaskWarning, match="covers 9.% of the picture"):
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values > 0)


@pytest.mark.parametrize("scale", [1 / 255, 0.5], ids=["as torchvision scales", "halves"])
def test_labels_as_fractions_are_refused(tmp_path: Path, scale: float) -> None:
    file = save_nifti((_areas(1, 2) * scale).astype(np.float32), tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match="neither the labels"):
        read_mask(file)


def test_labels_that_were_interpolated_are_refused(tmp_path: Path) -> None:
    small = np.zeros((30, 40), np.float32)
    small[5:20, 4:14], small[5:20, 20:34] = 1, 2
    file = save_nifti(
        np.asarray(Image.fromarray(small).resize((80, 60), Image.Resampling.BILINEAR)), tmp_path / "m.nii"
    )
    with pytest.raises(InputError, match="neither the labels"):
        read_mask(file)


def test_labels_that_were_scaled_and_scaled_back_are_labels(tmp_path: Path) -> None:
    values = _areas(1, 2)
    file = save_nifti((values / np.float32(255) * np.float32(255.0001)).astype(np.float32), tmp_path / "m.nii")
    np.testing.assert_array_equal(read_mask(file), values > 0)


def test_labels_in_a_jpeg_are_refused(tmp_path: Path) -> None:
    values = np.zeros((96, 128), np.uint8)
    values[16:64, 16:48], values[16:64, 72:112] = 100, 200
    Image.fromarray(values).save(tmp_path / "m.jpg", quality=95)
    with pytest.raises(InputError, match="neither the labels"):
        read_mask(tmp_path / "m.jpg")


@pytest.mark.parametrize("drawn", [(255, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("beside", [255, 0])
def test_transparent_parts_of_a_mask_are_background(tmp_path: Path, drawn: tuple[int, int, int], beside: int) -> None:
    lesion = _areas(1) > 0
    channels = np.full((*SHAPE, 4), beside, np.uint8)
    channels[..., 3] = 0
    channels[lesion] = (*drawn, 255)
    Image.fromarray(channels).save(tmp_path / "m.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", MaskWarning)
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), lesion)


def test_a_palette_of_one_colour_leaves_the_indices(tmp_path: Path) -> None:
    labels = _areas(1, 2)
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette([0] * 768)
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels > 0)
