# SPDX-License-Identifier: Apache-2.0
"""Claims about laying one image over another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bundle.data.alignment import Details, Scene, compare, read_details, read_scene


def _pixels(seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(190, 256)), 3)
    return (noise - noise.min()) / np.ptp(noise) * 255


@pytest.fixture(scope="module")
def scene() -> Scene:
    return read_scene(_pixels(0))


@pytest.fixture(scope="module")
def details(scene: Scene) -> Details:
    return read_details(scene)


def test_mirrored_detail_is_that_of_the_mirror_image(scene: Scene, details: Details) -> None:
    pixels, tissue = (np.ascontiguousarray(part[:, ::-1]) for part in (scene.pixels, scene.tissue))
    expected = read_details(Scene(pixels, tissue, scene.points, scene.descriptors))
    mirrored = details.mirrored()
    np.testing.assert_array_equal(mirrored.tissue, tissue)
    for name in ("fine", "coarse"):
        np.testing.assert_allclose(getattr(mirrored, name), getattr(expected, name), atol=1e-4)
    assert compare(read_details(read_scene(_pixels(0)[:, ::-1])), mirrored).texture > 0.9


def test_a_shifted_copy_is_found_at_its_shift(details: Details) -> None:
    like = compare(details, read_details(read_scene(np.roll(_pixels(0), (6, 9), axis=(0, 1)))))
    assert like.texture > 0.9
    assert like.anatomy > 0.9
    for matrix in (like.texture_matrix, like.anatomy_matrix):
        assert matrix is not None
        np.testing.assert_allclose(matrix, [[1, 0, 9], [0, 1, 6]], atol=0.6)


def test_texture_is_the_same_whether_anatomy_is_asked_or_not(details: Details) -> None:
    other = read_details(read_scene(np.roll(_pixels(0), 5, axis=1)))
    whole, texture = compare(details, other), compare(details, other, anatomy=False)
    assert (texture.texture, texture.texture_points) == (whole.texture, whole.texture_points)
    assert (texture.anatomy, texture.anatomy_matrix) == (0, None)


def test_unlike_images_have_nothing_in_common(details: Details) -> None:
    like = compare(details, read_details(read_scene(_pixels(1))))
    assert like.texture < 0.3
    assert like.anatomy < 0.42
