# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.handler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image

from bundle.data.check import array_sha256
from bundle.data.folder import ImageFolder, list_images
from bundle.data.names import output_name
from bundle.files import sha256_of
from bundle.networks.weights import write_weights
from bundle.outputs.handler import WriteMasks
from bundle.readers import read_image

THRESHOLD = 0.35


def _run(dataset: Path, output: Path) -> ImageFolder:
    """Segment each image of the dataset: the left third is lesion."""
    images = list_images(dataset)

    def predict(_: Engine, paths: list[str]) -> list[dict[str, MetaTensor]]:
        items = []
        for path in paths:
            width, height = Image.open(path).size
            probability = torch.full((1, height, width), 0.1)
            probability[..., : width // 3] = 0.9
            image = MetaTensor(torch.zeros(1, 4, 4), meta={"filename_or_obj": path})
            predicted = (probability >= THRESHOLD).to(torch.uint8)
            items.append({"image": image, "probability": MetaTensor(probability), "pred": MetaTensor(predicted)})
        return items

    engine = Engine(predict)
    weights = output.with_name("model.pt")
    write_weights(weights, {"w": torch.zeros(1)}, {"threshold": THRESHOLD})
    WriteMasks(output, dataset, images, weights).attach(engine)
    engine.run([list(images.readable)])
    return images


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    for number, name in enumerate(("a.png", "a.jpg", "sub/a.png", "sub/deep/b (1).bmp")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(40, 200, (20 + number, 33 + 3 * number))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def test_each_image_gets_a_mask_and_an_overlay_of_its_native_size(dataset: Path, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "out")
    for name in ("a.png", "a.jpg", "sub/a.png", "sub/deep/b (1).bmp"):
        size = Image.open(dataset / name).size
        written = output_name(dataset / name, dataset)
        mask = Image.open(tmp_path / "out" / "masks" / written)
        overlay = Image.open(tmp_path / "out" / "overlays" / written)
        assert (mask.size, mask.mode, overlay.size, overlay.mode) == (size, "L", size, "RGB")
        pixels = np.asarray(mask)
        assert set(np.unique(pixels)) == {0, 255}
        assert np.array_equal(pixels[0] == 255, np.arange(size[0]) < size[0] // 3)


def test_equal_names_in_two_folders_or_of_two_formats_do_not_collide(dataset: Path, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "out")
    expected = {"a.png", "a.jpg.png", "sub/a.png", "sub/deep/b (1).bmp.png"}
    for kind in ("masks", "overlays"):
        folder = tmp_path / "out" / kind
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == expected


def test_the_overlay_marks_the_lesion_and_leaves_the_rest_grey(dataset: Path, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "out")
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png")).astype(int)
    colourful = np.ptp(overlay, axis=2) > 0
    assert np.array_equal(colourful[10], np.arange(33) < 11)
    grey = np.asarray(Image.open(dataset / "a.png"))
    assert np.array_equal(overlay[:, 12:, 0], grey[:, 12:])


def test_skipped_files_are_listed_with_reason_and_mend(dataset: Path, tmp_path: Path) -> None:
    (dataset / "bad.png").write_bytes(b"")
    _run(dataset, tmp_path / "out")
    (skipped,) = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert skipped["path"] == str(dataset / "bad.png")
    assert "empty" in skipped["reason"]
    assert skipped["mend"]
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 4


def test_without_skipped_files_the_list_of_them_is_written_and_empty(dataset: Path, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "skipped.json").read_text()) == []


def test_a_blank_screen_has_an_empty_mask_and_map_and_ends_the_run_with_exit_code_3(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (60, 40), 128).save(dataset / "blank.png")
    images = _run(dataset, tmp_path / "out")
    for kind in ("masks", "probabilities"):
        assert not np.asarray(Image.open(tmp_path / "out" / kind / "blank.png")).any()
    (told,) = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert (told["path"], "no contrast" in told["reason"]) == (str(dataset / "blank.png"), True)
    with pytest.raises(SystemExit) as ended:
        images.exit_if_incomplete()
    assert ended.value.code == 3
    assert "4 of 5 images are done" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("image", "name"),
    [("x.png", "x.png"), ("x.PNG", "x.PNG"), ("x.jpeg", "x.jpeg.png"), ("s/x.y.tif", "s/x.y.tif.png")],
)
def test_the_name_tells_the_image_that_it_belongs_to(image: str, name: str) -> None:
    assert output_name(Path("data") / image, Path("data")) == Path(name)


def test_the_maps_say_which_segmenter_made_them_of_which_pixels(dataset: Path, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "segmenter.json").read_text())
    pixels = record.pop("pixels")
    assert pixels["a.png"] == array_sha256(read_image(dataset / "a.png").pixels)[:16]
    assert len(pixels) == 4
    assert record == {"sha256": sha256_of(tmp_path / "model.pt"), "threshold": THRESHOLD}


def test_maps_that_are_being_replaced_belong_to_nobody(dataset: Path, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "out")
    engine = Engine(lambda *_: [])
    weights = tmp_path / "model.pt"
    WriteMasks(tmp_path / "out", dataset, list_images(dataset), weights).attach(engine)

    @engine.on(Events.ITERATION_STARTED)
    def lose_power(_: Engine) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run([0])
    assert not (tmp_path / "out" / "segmenter.json").exists()
