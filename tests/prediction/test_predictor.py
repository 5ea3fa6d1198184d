# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.predictor, with small random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image

from bundle.errors import InputError, UserError
from bundle.files import sha256_of
from bundle.finding import LESION_STATES
from bundle.networks import SegNet
from bundle.networks.weights import flat_state_dict, read_card, write_weights
from bundle.prediction import Predictor
from bundle.readers import UltrasoundImage, read_image


@pytest.fixture(scope="module")
def predictor(tiny_models: Path) -> Predictor:
    return Predictor.from_folder(tiny_models, "cpu", amp=False)


@pytest.fixture(scope="module")
def image(small_phantom: Path) -> Path:
    return small_phantom / "malignant" / "malignant (1).png"


@pytest.fixture
def models(tiny_models: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(tiny_models, tmp_path / "models")


def _change_card(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_array_input_equals_file_input(predictor: Predictor, image: Path) -> None:
    pixels = np.asarray(Image.open(image))
    findings = [predictor.predict(given) for given in (image, str(image), pixels, pixels.astype(float))]
    findings.append(predictor.predict(read_image(image)))
    assert len({finding.probability for finding in findings}) == 1
    assert all(np.array_equal(finding.probability_map, findings[0].probability_map) for finding in findings)
    assert [finding.image for finding in findings] == [str(image), str(image), "array", "array", "array"]
    assert findings[0].size == findings[0].mask.shape == pixels.shape
    assert 0 < findings[0].probability < 1


def test_the_map_of_an_image_is_at_its_own_size_and_in_range(predictor: Predictor, image: Path) -> None:
    pixels = read_image(image).pixels
    probability = predictor.segment(pixels)
    assert probability.shape == pixels.shape
    assert probability.dtype == np.float32
    assert 0 <= probability.min() < probability.max() <= 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 8)),
        np.zeros(8),
        np.zeros((0, 8)),
        np.full((8, 8), 256.0),
        np.full((8, 8), 0.7),
        np.full((8, 8), -1),
        np.full((8, 8), np.nan),
        np.full((8, 8), np.inf),
        np.full((8, 8), "grey"),
        None,
        [[1, 2], [3]],
    ],
)
def test_an_array_of_wrong_shape_or_range_is_refused_in_one_line(predictor: Predictor, array: Any) -> None:
    with pytest.raises(UserError, match=r"give grey pixels \(H, W\) in \[0, 255\]") as caught:
        predictor.predict(array)
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=90)))
def test_every_grey_picture_gives_a_finding_that_is_strict_json(predictor: Predictor, pixels: np.ndarray) -> None:
    finding = predictor.predict(pixels)
    content = finding.as_dict()
    json.dumps(content, allow_nan=False)
    content["decisions"].clear()  # a copy
    assert finding.decisions
    assert finding.lesion_state in LESION_STATES
    assert finding.mask.shape == pixels.shape
    assert finding.mask.any() == (finding.probability is not None)
    assert finding.probability is None or 0 <= finding.probability <= 1


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_is_unusable_and_no_network_is_asked(
    level: int, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "segmenter", None)
    finding = predictor.predict(np.full((50, 70), level, np.uint8))
    assert (finding.lesion_state, finding.probability, finding.box) == ("unusable", None, None)


@pytest.mark.parametrize("bias", [-4.0, -40.0])
def test_a_segmenter_that_finds_nothing_gives_no_probability(
    bias: float, write_models: Callable[..., Path], tmp_path: Path, image: Path
) -> None:
    finding = Predictor.from_folder(write_models(tmp_path, bias=bias), "cpu").predict(image)
    assert (finding.lesion_state, finding.probability, finding.box) == ("none found", None, None)


@pytest.mark.parametrize(("gain", "offset"), [(1 / 2, 0), (1 / 16, 0), (1 / 16, 128), (0.8, 50)])
def test_the_probability_does_not_depend_on_brightness_and_contrast(
    gain: float, offset: float, root: Path, small_phantom: Path
) -> None:
    """In float, and as 16 bits hold it; by the shipped weights, fusion included."""
    shipped = Predictor.from_folder(root / "models", "cpu")
    for name in ("benign/benign (2).png", "malignant/malignant (1).png", "malignant/malignant (3).png"):
        pixels = read_image(small_phantom / name).pixels.astype(np.float64)
        plain, moved = shipped.predict(pixels), gain * pixels + offset
        for stored in (moved, np.rint(moved * 257) / 257):
            finding = shipped.predict(stored.astype(np.float32))
            assert finding.lesion_state == plain.lesion_state
            assert (finding.probability is None) == (plain.probability is None)
            if plain.probability is not None:
                assert finding.probability == pytest.approx(plain.probability, abs=0.02)


@pytest.mark.parametrize("name", ["model", "model_classifier"])
def test_damaged_weights_are_refused_by_their_sha256_before_they_are_read(models: Path, name: str) -> None:
    weights = models / f"{name}.pt"
    weights.write_bytes(b"not even a weights file")
    with pytest.raises(UserError, match=rf"{name}\.pt: its sha256 is not the one in {name}\.json"):
        Predictor.from_folder(models, "cpu")


@pytest.mark.parametrize("name", ["model", "model_classifier"])
def test_unverified_weights_run_only_when_allowed_and_every_finding_says_so(
    models: Path, name: str, image: Path
) -> None:
    _change_card(models / f"{name}.json", sha256="0" * 64)
    finding = Predictor.from_folder(models, "cpu", allow_unverified=True).predict(image)
    assert any("UNVERIFIED" in warning for warning in finding.warnings)
    assert sha256_of(models / f"{name}.pt") in finding.models.values()
    (models / f"{name}.json").unlink()
    with pytest.raises(UserError, match="no card"):
        Predictor.from_folder(models, "cpu", allow_unverified=True)


@pytest.mark.parametrize("name", ["model", "model_classifier"])
def test_a_missing_card_is_refused(models: Path, name: str) -> None:
    (models / f"{name}.json").unlink()
    with pytest.raises(UserError, match=rf"{name}\.pt: no card \({name}\.json\) beside it"):
        Predictor.from_folder(models, "cpu")


@pytest.mark.parametrize("name", ["model", "model_classifier"])
def test_missing_weights_are_refused(models: Path, name: str) -> None:
    (models / f"{name}.pt").unlink()
    with pytest.raises(UserError, match=rf"{name}\.pt: no such checkpoint"):
        Predictor.from_folder(models, "cpu")


def test_the_two_networks_in_each_others_place_are_refused(models: Path) -> None:
    with pytest.raises(UserError, match="card of another network"):
        Predictor(models / "model_classifier.pt", models / "model.pt", "cpu")
    with pytest.raises(UserError, match="card of another network"):
        Predictor(models / "model.pt", models / "model.pt", "cpu")


@pytest.mark.parametrize("name", ["model", "model_classifier"])
def test_weights_of_other_filters_than_the_card_says_are_refused(models: Path, name: str) -> None:
    _change_card(models / f"{name}.json", filters=[4, 6])
    with pytest.raises(UserError, match="weights of another network"):
        Predictor.from_folder(models, "cpu")


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_a_users_mistake(tiny_models: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"device '{device}'"):
        Predictor.from_folder(tiny_models, device)


def test_an_unreadable_file_is_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.png"):
        predictor.predict(tmp_path / "bad.png")


@pytest.mark.parametrize("variant", ["crop+mask", "masked"])
def test_explanations_are_off_unless_asked_for_and_then_of_the_images_size(
    variant: str, image: Path, write_models: Callable[..., Path], tmp_path: Path
) -> None:
    write_models(tmp_path)
    if variant == "masked":
        _make_masked(tmp_path)
    plain, explained = (Predictor.from_folder(tmp_path, "cpu", amp=False, explain=on) for on in (False, True))
    assert plain.predict(image).explanation is None
    finding = explained.predict(image)
    assert finding == plain.predict(image)
    assert finding.explanation is not None
    assert finding.explanation.shape == finding.size


def _make_masked(folder: Path) -> None:
    """Put a classifier of whole frames in the place of the one of crops."""
    torch.manual_seed(2)
    network = SegNet(in_channels=1, filters=(4, 8), decoder=True)
    weights = folder / "model_classifier.pt"
    card = {key: value for key, value in read_card(weights).items() if key != "sha256"}
    changes = {"in_channels": 1, "decoder": True, "batch_norm": False, "standardize": False, "variant": "masked"}
    write_weights(weights, flat_state_dict(network), {**card, **changes})


def test_only_the_region_is_looked_at_and_the_results_are_of_the_whole_frame(predictor: Predictor, image: Path) -> None:
    tissue = read_image(image).pixels
    frame = np.full((tissue.shape[0] + 30, tissue.shape[1] + 50), 200, np.float32)
    frame[10 : 10 + tissue.shape[0], 40 : 40 + tissue.shape[1]] = tissue
    region = (10, 40, 10 + tissue.shape[0], 40 + tissue.shape[1])
    placed, plain = predictor.predict(UltrasoundImage(frame, (0.1, 0.2), (), region)), predictor.predict(image)
    assert placed.probability == plain.probability
    assert placed.size == placed.mask.shape == placed.probability_map.shape == frame.shape
    assert np.array_equal(placed.mask[10 : region[2], 40 : region[3]], plain.mask)
    assert placed.mask.sum() == plain.mask.sum()
    assert placed.box == tuple(edge + (10, 40)[i % 2] for i, edge in enumerate(plain.box))
    assert placed.lesion["area_mm2"] == pytest.approx(plain.lesion["area_px"] * 0.02)


def test_a_frame_of_several_is_chosen_by_its_number(predictor: Predictor, image: Path, tmp_path: Path) -> None:
    picture, path = Image.open(image), tmp_path / "cine.tif"
    Image.new("L", picture.size, 90).save(path, save_all=True, append_images=[picture])
    with pytest.raises(InputError, match=r"cine\.tif: holds 2 frames"):
        predictor.predict(path)
    findings = [predictor.predict(path, frame=1), predictor.predict(f"{path}[1]")]
    assert findings[0] == findings[1]
    assert (findings[0].frame, findings[0].image) == (1, str(path))
    assert findings[0].probability == predictor.predict(image).probability
    assert predictor.predict(image).frame is None
