# SPDX-License-Identifier: Apache-2.0
"""Claims about the synthetic cines."""

from __future__ import annotations

import numpy as np

from bundle.data.phantom_cine import make_cine


def _areas(masks: np.ndarray) -> np.ndarray:
    return np.asarray(masks.sum((1, 2)))


def test_a_cine_depends_on_its_arguments_alone() -> None:
    one, same, other = (make_cine("benign", 2, 3, seed, (80, 100)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.frames, same.frames)
    assert one.frames.shape == one.masks.shape == (3, 80, 100)
    assert (one.frames.dtype, one.masks.dtype) == (np.uint8, np.bool_)
    assert (one.frames != other.frames).mean() > 0.5


def test_every_second_cine_sweeps_through_its_lesion_and_leaves_it() -> None:
    swept = _areas(make_cine("malignant", 1, 11).masks)
    assert (swept[0], swept[-1]) == (0, 0)
    assert 3 <= swept.argmax() <= 7
    held = _areas(make_cine("malignant", 2, 11).masks)
    assert held.min() > 0.4 * held.max()


def test_the_lesion_is_where_its_mask_says_and_moves_a_little_from_frame_to_frame() -> None:
    cine = make_cine("benign", 2, 12)
    inside = [frame[mask].mean() for frame, mask in zip(cine.frames, cine.masks, strict=True)]
    around = [frame[~mask].mean() for frame, mask in zip(cine.frames, cine.masks, strict=True)]
    assert np.mean(inside) < np.mean(around)
    centres = np.array([np.argwhere(mask).mean(0) for mask in cine.masks])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert 0 < steps.max() < 20


def test_the_setting_of_the_scanner_stays_and_the_speckle_changes() -> None:
    frames = make_cine("benign", 2, 4).frames.astype(float)
    assert np.ptp([frame.mean() for frame in frames]) < 5
    assert np.abs(frames[0] - frames[3]).mean() > 8
