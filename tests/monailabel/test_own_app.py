# SPDX-License-Identifier: Apache-2.0
"""Claims about the bundle's own MONAI Label app, against the real server; trainings come last, they change weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bundle.files import sha256_of
from bundle.prediction import Predictor

MODEL = "breast_ultrasound"
FILES = {"benign1": "benign1.png", "photo": "photo.jpg", "volume": "volume.nii.gz", "frame": "frame.dcm"}
Own = tuple[Any, Path, Path]


@pytest.fixture(scope="module")
def predictor(own: Own) -> Predictor:
    return Predictor.from_folder(own[1] / "models", "cpu")


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_info_names_one_label_the_trainers_and_the_strategies(own: Own) -> None:
    info = own[0].call("GET", "/info/").json()
    assert info["labels"] == {"lesion": 1}
    assert info["models"][MODEL]["type"] == "segmentation"
    assert set(info["trainers"]) == {"segmentation", "classification"}
    assert set(info["strategies"]) == {"random", "first", "uncertain_outline", "uncertain_class"}
    assert info["trainers"]["classification"]["config"]["model_filename"] == ["model_classifier.pt"]
    assert info["datastore"]["total"] == 11


@pytest.mark.parametrize("image", ["benign1", "photo", "frame"])
def test_the_mask_of_a_picture_is_the_predictors_at_native_size(
    image: str, own: Own, predictor: Predictor, tmp_path: Path
) -> None:
    server, _, studies = own
    expected = predictor.predict(studies / FILES[image]).mask
    file = server.mask(MODEL, image, tmp_path)
    assert file.suffix == ".png"
    mask = np.asarray(Image.open(file))
    assert mask.dtype == np.uint8
    assert mask.shape == expected.shape
    assert mask.shape[0] < mask.shape[1]
    assert set(np.unique(mask)) == {0, 1}
    assert _dice(mask > 0, expected) >= 0.99


@pytest.mark.parametrize(("image", "extension"), [("volume", None), ("benign1", ".nrrd"), ("frame", ".nrrd")])
def test_the_mask_of_a_volume_lies_where_its_image_lies(
    image: str, extension: str | None, own: Own, predictor: Predictor, tmp_path: Path
) -> None:
    import SimpleITK

    server, _, studies = own
    expected = predictor.predict(studies / FILES[image]).mask
    label = SimpleITK.ReadImage(str(server.mask(MODEL, image, tmp_path, extension)))
    values = SimpleITK.GetArrayFromImage(label)
    assert values.shape == (1, *expected.shape)
    assert values.dtype == np.uint8
    assert _dice(values[0] > 0, expected) >= 0.99
    source = SimpleITK.ReadImage(str(studies / FILES[image]))
    plane = source.GetDimension()
    assert label.GetSpacing()[:plane] == pytest.approx(source.GetSpacing(), rel=1e-5)
    assert label.GetOrigin()[:plane] == pytest.approx(source.GetOrigin())
    if plane == 3:
        assert label.GetDirection() == pytest.approx(source.GetDirection(), abs=1e-6)


@pytest.mark.parametrize("image", sorted(FILES))
def test_class_and_probability_are_the_predictors(image: str, own: Own, predictor: Predictor) -> None:
    server, _, studies = own
    expected = predictor.predict(studies / FILES[image])
    answer = server.call("POST", f"/infer/{MODEL}?image={image}&output=json").json()
    assert answer["finding"]["probability"] == pytest.approx(expected.probability, abs=1e-9)
    assert answer["finding"]["decisions"] == expected.decisions
    assert answer["finding"]["image"] == FILES[image]
    assert answer["class"] == expected.decisions["probability 0.5"]["decision"]
    assert answer["label_names"] == {"lesion": 1}
    scores = {entry["label"]: entry["score"] for entry in answer["prediction"]}
    assert scores["malignant"] == pytest.approx(expected.probability, abs=1e-9)
    assert sum(scores.values()) == pytest.approx(1)


def test_mask_and_class_come_in_one_answer_by_default(own: Own) -> None:
    response = own[0].call("POST", f"/infer/{MODEL}?image=benign1")
    assert response.headers["content-type"].startswith("multipart/form-data")
    assert b'"class"' in response.content
    assert b"\x89PNG" in response.content


def test_a_file_sent_along_is_answered_like_one_of_the_studies(own: Own) -> None:
    server, _, studies = own
    with (studies / "benign1.png").open("rb") as file:
        sent = server.call("POST", f"/infer/{MODEL}?output=json", files={"file": ("x.png", file)}).json()
    stored = server.call("POST", f"/infer/{MODEL}?image=benign1&output=json").json()
    assert sent["finding"]["probability"] == stored["finding"]["probability"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (f"/infer/{MODEL}?image=nobody", "image 'nobody' is unknown"),
        (f"/infer/{MODEL}?image=/etc/hostname", "image '/etc/hostname' is unknown"),
        ("/infer/nothing?image=benign1", "model 'nothing' is unknown"),
        ("/activelearning/clever", "strategy 'clever' is unknown"),
    ],
)
def test_what_is_unknown_is_named_with_status_404(path: str, named: str, own: Own) -> None:
    assert named in own[0].call("POST", path, status=404).json()["detail"]


def test_a_damaged_file_is_named_with_the_reason(own: Own) -> None:
    server, _, studies = own
    cut = (studies / "benign1.png").read_bytes()[:300]
    detail = server.call("POST", f"/infer/{MODEL}", status=422, files={"file": ("x.png", cut)}).json()["detail"]
    assert detail.startswith("uploaded file: ")
    assert "decoded" in detail


def test_polygons_of_cvat_and_qupath_enclose_the_mask(own: Own, predictor: Predictor) -> None:
    server, _, studies = own
    expected = predictor.predict(studies / "benign1.png").mask
    answers = [
        server.call("POST", f"/infer/{MODEL}?image=benign1&output=json", data={"params": '{"output": "json"}'}).json(),
        server.call("POST", f"/infer/wsi_v2/{MODEL}?image=benign1&output=json").json(),
    ]
    for answer in answers:
        assert "prediction" not in answer  # CVAT would draw it as a rectangle
        assert answer["class"] in ("benign", "malignant")
        (element,) = answer["annotations"][0]["annotation"]["elements"]
        assert element["label"] == "lesion"
        assert _dice(_filled(element["contours"], expected.shape), expected) >= 0.99
    xml = ElementTree.fromstring(server.call("POST", f"/infer/wsi_v2/{MODEL}?image=benign1&output=asap").content)
    contours = [
        [(float(point.attrib["X"]), float(point.attrib["Y"])) for point in polygon.iter("Coordinate")]
        for polygon in xml.iter("Annotation")
    ]
    assert _dice(_filled(contours, expected.shape), expected) >= 0.99


def _filled(contours: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    canvas = Image.new("1", (shape[1], shape[0]))
    for contour in contours:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in contour], fill=1, outline=1)
    return np.asarray(canvas)


def test_uncertain_strategies_ask_for_the_highest_entropy_first(own: Own) -> None:
    server = own[0]
    first = server.call("POST", "/activelearning/first").json()["id"]
    assert first == "benign1"
    assert server.call("POST", "/activelearning/random", json={}).json()["id"]
    scored = server.call("POST", "/scoring/uncertainty?run_sync=true").json()
    assert (scored["scored"], scored["failed"]) == (11, {})
    assert server.call("POST", "/scoring/uncertainty?run_sync=true").json()["skipped"] == 11
    images = server.call("GET", "/datastore/?output=all").json()["objects"]
    for strategy, key in (("uncertain_outline", "outline_entropy"), ("uncertain_class", "class_entropy")):
        order = sorted(images, key=lambda name: (-images[name]["image"]["info"][key], name))
        asked = [server.call("POST", f"/activelearning/{strategy}").json() for _ in range(2)]
        assert [answer["id"] for answer in asked] == order[:2]  # one that was just asked for is not asked for again
        assert 0 < asked[0][key] <= 1


def test_batch_inference_keeps_a_mask_of_every_image_and_names_a_bad_one(own: Own) -> None:
    server, _, studies = own
    cut = {"file": ("cut.png", (studies / "benign1.png").read_bytes()[:300])}
    server.call("PUT", "/datastore/image?image=cut", files=cut)
    answers = server.call("POST", f"/batch/infer/{MODEL}?images=unlabeled&run_sync=true").json()
    assert answers["cut"]["error"].startswith("cut: ")
    server.call("DELETE", "/datastore/image?id=cut")
    labels = server.call("GET", "/datastore/").json()["label_tags"]
    assert labels == {"original": 11}
    assert Image.open(studies / "labels" / "original" / "photo.png").size == Image.open(studies / "photo.jpg").size


def test_training_without_labels_says_what_is_missing(own: Own) -> None:
    server = own[0]
    for model, named in (("segmentation", "no image has a final label"), ("classification", "0 images are benign")):
        assert named in server.call("POST", f"/train/{model}?run_sync=true", status=422).json()["detail"]


def test_submitted_masks_train_the_segmenter_and_the_former_weights_are_kept(
    own: Own, mask_of: Callable[[str], Path], tmp_path: Path
) -> None:
    server, root, studies = own
    before = sha256_of(root / "models" / "model.pt")
    for image in ("benign1", "benign2", "benign3", "malignant1", "malignant2"):
        with mask_of(image).open("rb") as file:
            server.call("PUT", f"/datastore/label?image={image}", files={"label": (f"{image}.png", file)})
    _submit_as_slicer_does(server, "volume", mask_of("benign5"), tmp_path)
    assert server.call("GET", "/datastore/").json()["completed"] == 6
    task = server.train("segmentation", max_epochs=2, run_id="", val_split=0.2)
    assert task["status"] == "DONE", task["details"]
    card = json.loads((root / "models" / "model.json").read_text())
    assert card["sha256"] == sha256_of(root / "models" / "model.pt") != before
    assert (card["training_images"], card["validation"]["images"]) == (5, 1)
    assert card["threshold"] == 0.5  # one image is too few to choose a threshold from
    assert card["split"] is None
    assert sha256_of(root / "models" / "versions" / f"model-{before[:8]}.pt") == before
    expected = Predictor.from_folder(root / "models", "cpu").predict(studies / "malignant4.png")
    mask = np.asarray(Image.open(server.mask(MODEL, "malignant4", tmp_path)))
    assert (mask.astype(bool) == expected.mask).all()
    agreement = server.call("POST", "/scoring/agreement?run_sync=true").json()
    assert len(agreement) == 6
    assert np.mean(list(agreement.values())) > 0.6  # it began at the shipped weights, not at random ones


def _submit_as_slicer_does(server: Any, image: str, mask: Path, folder: Path) -> None:
    """3D Slicer sends every label as a NIfTI volume of one slice."""
    import nibabel

    values = np.asarray(Image.open(mask).convert("L")).T[..., None] > 0
    nibabel.save(nibabel.Nifti1Image(values.astype(np.uint8), np.eye(4)), folder / "label.nii.gz")
    with (folder / "label.nii.gz").open("rb") as file:
        server.call("PUT", f"/datastore/label?image={image}", files={"label": ("label.nii.gz", file)})


def test_diagnoses_train_the_classifier_and_only_on_its_own_weights(own: Own) -> None:
    server, root, studies = own
    before = sha256_of(root / "models" / "model_classifier.pt")
    segmenter = sha256_of(root / "models" / "model.pt")
    for label in ("benign", "malignant"):
        for number in range(1, 5):
            _diagnose(server, f"{label}{number}", label)
    _diagnose(server, "photo", "normal")
    task = server.train("classification", max_epochs=2, model_filename="model.pt")  # as a client's menu may say
    assert task["status"] == "DONE", task["details"]
    card = json.loads((root / "models" / "model_classifier.json").read_text())
    assert card["sha256"] != before
    assert card["segmenter_sha256"] == [segmenter]
    assert (card["training_images"], card["validation"]["images"]) == (6, 2)
    assert sha256_of(root / "models" / "versions" / f"model_classifier-{before[:8]}.pt") == before
    assert sha256_of(root / "models" / "model.pt") == segmenter
    answer = server.call("POST", f"/infer/{MODEL}?image=benign4&output=json").json()
    expected = Predictor.from_folder(root / "models", "cpu").predict(studies / "benign4.png")
    assert answer["finding"]["models"]["classifier"] == card["sha256"]
    assert answer["finding"]["probability"] == pytest.approx(expected.probability, abs=1e-9)
    _diagnose(server, "benign4", "unclear")
    detail = server.call("POST", "/train/classification?run_sync=true", status=422).json()["detail"]
    assert "benign4: its diagnosis is 'unclear'; allowed are benign, malignant and normal" in detail


def _diagnose(server: Any, image: str, label: str) -> None:
    info = json.dumps({"diagnosis": label})
    server.call("PUT", f"/datastore/image/info?image={image}", data={"info": info})
    assert server.call("GET", f"/datastore/image/info?image={image}").json()["diagnosis"] == label


def test_the_classifier_never_runs_on_weights_that_are_not_its_own(own: Own) -> None:
    server, root, _ = own
    weights = root / "models" / "model_classifier.pt"
    kept = weights.read_bytes()
    weights.write_bytes((root / "models" / "model.pt").read_bytes())
    try:
        detail = server.call("POST", f"/infer/{MODEL}?image=benign1", status=422).json()["detail"]
        assert "its sha256 is not the one in model_classifier.json" in detail
    finally:
        weights.write_bytes(kept)
    start = time.monotonic()
    server.call("POST", f"/infer/{MODEL}?image=benign1&output=json")
    assert time.monotonic() - start < 30
