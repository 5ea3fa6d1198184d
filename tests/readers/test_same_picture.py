# SPDX-License-Identifier: Apache-2.0
"""One picture through every format: the same lesion and the same probability, by Predictor and by configs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import region, regions, save, save_nifti, ultrasound
from PIL import Image
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from bundle.data.phantom import make_phantom
from bundle.prediction import Predictor
from bundle.readers import read_image

LOSSLESS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "picture.tif": lambda pixels, path: Image.fromarray(pixels).save(path),
    "picture.bmp": lambda pixels, path: Image.fromarray(pixels).save(path),
    "picture.nii": save_nifti,
    "picture.nii.gz": save_nifti,
    "monochrome2.dcm": lambda pixels, path: save(ultrasound(pixels), path),
    "monochrome1.dcm": lambda pixels, path: save(ultrasound(pixels, "MONOCHROME1"), path),
    "palette.dcm": lambda pixels, path: save(ultrasound(pixels, "PALETTE COLOR", RLELossless), path),
    "rgb.dcm": lambda pixels, path: save(ultrasound(pixels, "RGB", ExplicitVRBigEndian), path),
    "ybr.dcm": lambda pixels, path: save(ultrasound(pixels, "YBR_FULL"), path),
    "jpeg2000.dcm": lambda pixels, path: save(ultrasound(pixels, "RGB", JPEG2000Lossless), path),
    "jpeg_ls": lambda pixels, path: save(ultrasound(pixels, syntax=JPEGLSLossless), path),
    "cine.dcm": lambda pixels, path: save(ultrasound([pixels // 2, pixels]), path),
}
LOSSY: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "picture.jpg": lambda pixels, path: Image.fromarray(pixels).save(path, quality=95),
    "jpeg.dcm": lambda pixels, path: save(ultrasound(pixels, "YBR_FULL_422", JPEGBaseline8Bit), path),
}


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A phantom with a lesion, (H, W) uint8."""
    folder = tmp_path_factory.mktemp("phantom") / "phantom"
    make_phantom(folder, counts={"malignant": 1}, size_range=((200, 220), (300, 320)))
    return np.asarray(Image.open(next((folder / "malignant").glob("malignant (1).png"))).convert("L"))


@pytest.fixture(scope="module")
def predictor(root: Path) -> Predictor:
    """The shipped networks, to the last bit."""
    return Predictor.from_folder(root / "models", "cpu", amp=False)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_every_format_gives_the_same_lesion_and_probability(
    name: str, pixels: np.ndarray, predictor: Predictor, tmp_path: Path
) -> None:
    expected = predictor.predict(pixels)
    {**LOSSLESS, **LOSSY}[name](pixels, tmp_path / name)
    finding = predictor.predict(tmp_path / name, frame=1 if name.startswith("cine") else None)
    assert finding.size == pixels.shape
    assert _dice(finding.mask, expected.mask) >= (0.98 if name in LOSSY else 0.999)
    tolerance = 0.05 if name in LOSSY else 1e-3
    assert finding.probability == pytest.approx(expected.probability, abs=tolerance)


def test_a_region_with_text_around_it_gives_what_its_tissue_alone_gives(
    pixels: np.ndarray, predictor: Predictor, tmp_path: Path
) -> None:
    frame = np.full((pixels.shape[0] + 60, pixels.shape[1] + 80), 255, np.uint8)
    box = (40, 60, 40 + pixels.shape[0], 60 + pixels.shape[1])
    frame[box[0] : box[2], box[1] : box[3]] = pixels
    items = regions(region(*box, (0.08, 0.12)))
    finding = predictor.predict(save(ultrasound(frame, "RGB", SequenceOfUltrasoundRegions=items), tmp_path / "a.dcm"))
    expected = predictor.predict(pixels)
    assert finding.probability == pytest.approx(expected.probability, abs=1e-6)
    assert np.array_equal(finding.mask[box[0] : box[2], box[1] : box[3]], expected.mask)
    assert finding.mask.sum() == expected.mask.sum()
    assert finding.spacing_mm == pytest.approx((0.08, 0.12))
    assert finding.lesion["area_mm2"] == pytest.approx(expected.lesion["area_px"] * 0.08 * 0.12)


def test_pipeline_and_predictor_agree_on_clinical_files(
    pixels: np.ndarray,
    tiny_models: Path,
    tmp_path: Path,
    root: Path,
    run_bundle: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    images = tmp_path / "archive"
    items = regions(region(20, 30, 180, 260, (0.08, 0.12)))
    save(ultrasound(pixels, "RGB", SequenceOfUltrasoundRegions=items), images / "ward" / "1.2.840.5")
    save(ultrasound(pixels, "MONOCHROME1", SequenceOfUltrasoundRegions=items), images / "ward" / "scan.dcm")
    save(ultrasound([pixels, pixels // 2], syntax=RLELossless), images / "cine.dcm")
    save_nifti(pixels, images / "scan.nii.gz", (0.1, 0.2))
    save(ultrasound(pixels, Modality="CT"), images / "ct.dcm")
    (images / "DICOMDIR").write_bytes((images / "cine.dcm").read_bytes())
    output = tmp_path / "out"
    done = run_bundle(
        *("--config_file", "configs/inference_pipeline.json", "--dataset_dir", images, "--output_dir", output),
        *("--weights", tiny_models / "model.pt", "--classifier_weights", tiny_models / "model_classifier.pt"),
        *("--each_frame", "True", "--amp", "false", "--batch_size", "2", "--device", "cpu"),
    )
    assert done.returncode == 3, done.stderr[-3000:]
    content = json.loads((output / "findings.json").read_text())
    assert [bad["path"] for bad in content["skipped"]] == ["ct.dcm"]
    rows = {row["image"]: row for row in content["findings"]}
    names = {"cine.dcm.frame0.png": "cine.dcm", "cine.dcm.frame1.png": "cine.dcm", "scan.nii.gz.png": "scan.nii.gz"}
    names |= {"ward/1.2.840.5.png": "ward/1.2.840.5", "ward/scan.dcm.png": "ward/scan.dcm"}
    assert rows.keys() == names.keys()
    predictor = Predictor.from_folder(tiny_models, "cpu", amp=False)
    for name, file in names.items():
        row = rows[name]
        finding = predictor.predict(images / file, row["frame"])
        assert row["probability"] == pytest.approx(finding.probability, abs=1e-3)
        assert row["size"] == list(finding.size) == list(read_image(images / file, row["frame"]).pixels.shape)
        mask = np.asarray(Image.open(output / "masks" / name)) > 0
        assert mask.shape == finding.mask.shape
        assert _dice(mask, finding.mask) >= 0.999
        if file.startswith("ward"):
            assert not mask[:20].any()
            assert row["spacing_mm"] == pytest.approx([0.08, 0.12])
            assert row["lesion"]["area_mm2"] == pytest.approx(finding.lesion["area_mm2"], rel=1e-3)
