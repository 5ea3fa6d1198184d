# SPDX-License-Identifier: Apache-2.0
"""Claims about DICOM SEG as masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fabricate import save, segmentation, ultrasound
from pydicom.dataset import Dataset

from bundle.errors import InputError
from bundle.readers import read_mask

GREY = np.zeros((21, 33), np.uint8)  # 693 pixels: the second frame starts inside a byte


def _mask(row: int) -> np.ndarray:
    mask = np.zeros(GREY.shape, bool)
    mask[row : row + 3, 5:12] = True
    return mask


def test_segments_of_one_image_are_merged_by_or(tmp_path: Path) -> None:
    path = save(segmentation([_mask(2), _mask(9)], segments=[1, 2]), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_mask(path), _mask(2) | _mask(9))


def test_the_frames_of_the_named_image_are_taken(tmp_path: Path) -> None:
    one, other = ultrasound(GREY), ultrasound(GREY)
    path = save(
        segmentation([_mask(2), _mask(9)], [(one.SOPInstanceUID, None), (other.SOPInstanceUID, None)]),
        tmp_path / "seg.dcm",
    )
    for dataset, row in ((one, 2), (other, 9)):
        image = save(dataset, tmp_path / f"{row}.dcm")
        np.testing.assert_array_equal(read_mask(path, image), _mask(row))


def test_the_frame_of_a_cine_is_told_apart(tmp_path: Path) -> None:
    cine = ultrasound([GREY, GREY, GREY])
    uid = cine.SOPInstanceUID
    path = save(segmentation([_mask(2), _mask(9)], [(uid, 1), (uid, 3)]), tmp_path / "seg.dcm")
    image = save(cine, tmp_path / "cine.dcm")
    np.testing.assert_array_equal(read_mask(path, f"{image}[0]"), _mask(2))
    np.testing.assert_array_equal(read_mask(path, f"{image}[2]"), _mask(9))
    assert not read_mask(path, f"{image}[1]").any()


def test_a_segmentation_of_another_image_is_refused(tmp_path: Path) -> None:
    path = save(segmentation([_mask(2)], [("1.2.3", None)]), tmp_path / "seg.dcm")
    with pytest.raises(InputError, match=r"seg\.dcm: segments another image"):
        read_mask(path, save(ultrasound(GREY), tmp_path / "a.dcm"))


def test_sources_that_frames_share_or_the_header_lists_count_too(tmp_path: Path) -> None:
    image = ultrasound(GREY)
    file = save(image, tmp_path / "a.dcm")
    for uid, is_own in ((image.SOPInstanceUID, True), ("1.2.3", False)):
        shared = segmentation([_mask(2)], [(uid, None)])
        shared.SharedFunctionalGroupsSequence = shared.PerFrameFunctionalGroupsSequence
        del shared.PerFrameFunctionalGroupsSequence
        listed, instance, series = segmentation([_mask(2)]), Dataset(), Dataset()
        instance.ReferencedSOPInstanceUID = uid
        series.ReferencedInstanceSequence = [instance]
        listed.ReferencedSeriesSequence = [series]
        for dataset in (shared, listed):
            path = save(dataset, tmp_path / "seg.dcm")
            if is_own:
                np.testing.assert_array_equal(read_mask(path, file), _mask(2))
            else:
                with pytest.raises(InputError, match="segments another image"):
                    read_mask(path, file)


def test_frames_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    path = save(segmentation([_mask(2), _mask(9)]), tmp_path / "seg.dcm")
    with pytest.raises(InputError, match="does not say which belongs to this image"):
        read_mask(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SegmentationType": "FRACTIONAL"}, "type FRACTIONAL"),
        ({"Rows": 40}, "its header claims 165"),
        ({"Rows": 60000, "Columns": 60000}, "more than the limit"),
    ],
)
def test_what_is_not_read_is_refused(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    dataset = segmentation([_mask(2)])
    for key, value in changes.items():
        setattr(dataset, key, value)
    with pytest.raises(InputError, match=reason):
        read_mask(save(dataset, tmp_path / "seg.dcm"))


def test_an_image_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Ultrasound Image Storage"):
        read_mask(save(ultrasound(GREY), tmp_path / "a.dcm"))
