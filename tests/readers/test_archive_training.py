# SPDX-License-Identifier: Apache-2.0
"""Claims about an institution's own archive: folders and manifests of DICOM and NIfTI, patients, training."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fabricate import region, regions, save, save_nifti, segmentation, ultrasound
from PIL import Image

from bundle.data.cases import read_cases
from bundle.data.check import check_dataset
from bundle.data.datalists import load_datalist
from bundle.data.folder import list_images
from bundle.data.manifest import list_manifest
from bundle.data.patients import SALT_FILE, SALT_VARIABLE, hashed_patient, patient_salt
from bundle.data.prepare import prepare
from bundle.errors import UserError
from bundle.transforms import FitTod, LoadLesionMaskd, LoadUltrasoundd
from tests.readers.clips import HEIGHT, WIDTH, encode

GREY = (np.add.outer(np.arange(40) * 3, np.arange(60) * 2) % 256).astype(np.uint8)
MARGINS = ((8, 5), (10, 20))
"""Of the frame around the tissue: above, below; left, right."""


def _names(folder: Path, **options: bool) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in list_images(folder, **options).readable]


def test_a_folder_of_an_archive_is_listed_by_suffix_and_preamble(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.DICOM", "c.ima", "IM0001", "1.2.840.113619.2", "DICOMDIR", "notes.txt"):
        save(ultrasound(GREY), tmp_path / name)
    (tmp_path / "README").write_text("no image")
    save_nifti(GREY, tmp_path / "d.nii")
    save_nifti(GREY, tmp_path / "e.nii.gz")
    save_nifti(GREY, tmp_path / "e_mask.nii.gz")
    assert _names(tmp_path) == ["1.2.840.113619.2", "IM0001", "a.dcm", "b.DICOM", "c.ima", "d.nii", "e.nii.gz"]


def test_a_bad_file_and_a_cine_are_told_and_the_others_kept(tmp_path: Path) -> None:
    good = save(ultrasound(GREY), tmp_path / "good.dcm").read_bytes()
    (tmp_path / "torn.dcm").write_bytes(good[:600])
    save(ultrasound([GREY, GREY]), tmp_path / "cine.dcm")
    images = list_images(tmp_path)
    assert images.readable == (str(tmp_path / "good.dcm"),)
    assert [(Path(bad.path).name) for bad in images.skipped] == ["cine.dcm", "torn.dcm"]
    assert _names(tmp_path, each_frame=True) == ["cine.dcm[0]", "cine.dcm[1]", "good.dcm"]


def test_a_manifest_names_frames(tmp_path: Path) -> None:
    text = "image,frame,mask,label\ncine.dcm,3,m.png,benign\ncine.dcm,12,n.png,benign\na.png,,o.png,benign\n"
    (tmp_path / "manifest.csv").write_text(text)
    listed, problems = list_manifest(tmp_path / "manifest.csv")
    assert ([item.image for item in listed], problems) == (["a.png", "cine.dcm[12]", "cine.dcm[3]"], [])
    (tmp_path / "manifest.csv").write_text("image,frame,mask,label\ncine.dcm,first,m.png,benign\n")
    assert "'first' is no number" in str(list_manifest(tmp_path / "manifest.csv")[1][0])


def test_a_manifest_names_frames_of_a_clip(tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", 8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:60, 40:80] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "manifest.csv").write_text("image,frame,mask,label\nclip.mp4,5,mask.png,benign\n")
    (case,) = check_dataset(tmp_path).cases
    assert (case.image, case.size) == ("clip.mp4[5]", (HEIGHT, WIDTH))


def test_a_folder_lists_clips_as_it_lists_other_cines(tmp_path: Path) -> None:
    save(ultrasound(GREY), tmp_path / "good.dcm")
    encode(tmp_path / "clip.mov", 2)
    images = list_images(tmp_path)
    assert [Path(bad.path).name for bad in images.skipped] == ["clip.mov"]
    assert "holds 2 frames, not one image" in images.skipped[0].reason
    assert _names(tmp_path, each_frame=True) == ["clip.mov[0]", "clip.mov[1]", "good.dcm"]


def test_patients_are_told_apart_by_hashes_that_need_the_key(tmp_path: Path) -> None:
    one, same, other = (save(ultrasound(GREY, PatientID=id_), tmp_path / f"{n}.dcm") for n, id_ in enumerate("AAB"))
    hashes = [hashed_patient(path, b"0" * 32) for path in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashed_patient(one, b"1" * 32) != hashes[0]
    assert len(hashes[0]) == 16
    for bad in (save(ultrasound(GREY, PatientID=""), tmp_path / "x.dcm"), save_nifti(GREY, tmp_path / "y.nii")):
        with pytest.raises(UserError, match=r"no patient|no DICOM file"):
            hashed_patient(bad, b"0" * 32)


def _phantom(folder: Path, number: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Image and mask of one phantom, and its class."""
    label = "benign" if number % 4 < 2 else "malignant"
    path = folder / label / f"{label} ({number // 4 * 2 + number % 2 + 1}).png"
    mask = Image.open(path.with_name(path.stem + "_mask.png"))
    return np.asarray(Image.open(path).convert("L")), np.asarray(mask.convert("L")) > 0, label


@pytest.fixture(scope="module")
def archive(small_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of eight patients: DICOM with a region, one frame of a cine, NIfTI; masks of three kinds."""
    folder = tmp_path_factory.mktemp("data") / "archive"
    rows = ["image,frame,mask,label,patient"]
    for number in range(16):
        tissue, inside, label = _phantom(small_phantom, number)
        frame, mask = np.pad(tissue, MARGINS, constant_values=200), np.pad(inside, MARGINS)
        height, width = tissue.shape
        items = regions(region(MARGINS[0][0], MARGINS[1][0], MARGINS[0][0] + height, MARGINS[1][0] + width))
        elements = {"PatientID": f"P{number // 2}", "SequenceOfUltrasoundRegions": items}
        image, chosen, owner = f"us/IM{number:04}", "", "from-header"
        if number % 4 == 3:
            image, owner = f"us/{number}.nii.gz", f"P{number // 2}"
            (folder / "us").mkdir(exist_ok=True)
            save_nifti(tissue, folder / image, (0.1, 0.1))
            mask = inside
        elif number % 4 == 2:
            chosen = "1"
            dataset = ultrasound([frame // 2, frame], "RGB", **elements)
            save(dataset, folder / image)
        else:
            dataset = ultrasound(frame, **elements)
            save(dataset, folder / image)
        (folder / "masks").mkdir(exist_ok=True)
        name = f"masks/{number}" + (".dcm", ".png", ".dcm", ".nii.gz")[number % 4]
        if name.endswith(".dcm"):
            save(segmentation([mask], [(dataset.SOPInstanceUID, 2 if chosen else None)]), folder / name)
        elif name.endswith(".png"):
            Image.fromarray(mask).save(folder / name)
        else:
            save_nifti(mask.astype(np.uint8), folder / name)
        rows.append(f"{image},{chosen},{name},{label},{owner}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def prepared(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What preparing the archive left."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(archive, folder, split="50:25:25")
    return folder


def test_an_archive_is_prepared_without_a_name_of_a_patient(prepared: Path) -> None:
    files = [path for path in prepared.iterdir() if path.suffix != ".png"]
    assert (prepared / SALT_FILE) in files
    assert not any("Doe" in path.read_text() for path in files)
    case_list = read_cases(prepared / "cases.json")
    assert len(case_list.cases) == 16
    hashes = {case.patient for case in case_list.cases if not case.image.endswith(".nii.gz")}
    assert len(hashes) == 8
    assert all(len(name or "") == 16 for name in hashes)


def test_the_key_is_kept_beside_the_prepared_data_or_comes_from_the_environment(
    archive: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = read_cases(prepared / "cases.json").dataset_sha256
    assert check_dataset(archive, salt=lambda: patient_salt(prepared)).dataset_sha256 == made
    assert check_dataset(archive).dataset_sha256 != made
    monkeypatch.setenv(SALT_VARIABLE, "a secret of the hospital")
    one, other = (check_dataset(archive, salt=lambda n=n: patient_salt(tmp_path / n)) for n in ("one", "other"))
    assert one.dataset_sha256 == other.dataset_sha256 != made
    assert not (tmp_path / "one").exists()
    monkeypatch.setenv(SALT_VARIABLE, "short")
    with pytest.raises(UserError, match="5 characters are too few"):
        patient_salt(tmp_path)


def test_images_and_masks_are_cut_by_the_same_region(archive: Path, prepared: Path, small_phantom: Path) -> None:
    datalist = load_datalist(prepared / "datalist_segmentation.json", archive)
    load, mask, fit = LoadUltrasoundd("image"), LoadLesionMaskd("label"), FitTod(["image", "label"], (32, 32))
    for part in ("training", "validation", "test"):
        assert datalist[part]
        for record in datalist[part]:
            loaded = mask(load(record))
            number = int("".join(filter(str.isdigit, Path(record["label"][0]).name)))
            tissue, inside, _ = _phantom(small_phantom, number)
            np.testing.assert_allclose(loaded["image"][0].numpy(), tissue / 255, atol=1e-6)
            np.testing.assert_array_equal(loaded["label"][0].numpy(), inside)
            assert fit(loaded)["label"].shape == (1, 32, 32)


def test_a_mask_outside_the_region_or_of_another_size_is_told(tmp_path: Path) -> None:
    save(ultrasound(GREY, SequenceOfUltrasoundRegions=regions(region(0, 20, 40, 60))), tmp_path / "a.dcm")
    mask = np.zeros(GREY.shape, bool)
    mask[5:10, 2:9] = True
    Image.fromarray(mask).save(tmp_path / "outside.png")
    Image.fromarray(np.ones((40, 40), bool)).save(tmp_path / "cut.png")
    for name, reason in (("outside", "marks nothing inside the tissue region"), ("cut", "40×40, its image 40×60")):
        (tmp_path / "manifest.csv").write_text(f"image,mask,label\na.dcm,{name}.png,benign\n")
        with pytest.raises(UserError, match=reason):
            check_dataset(tmp_path)


@pytest.mark.slow
def test_an_archive_trains_and_is_evaluated_without_being_converted(
    archive: Path, tmp_path: Path, run_bundle: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    words = [
        *("--dataset_dir", str(archive), "--prepared_dir", str(tmp_path / "prepared"), "--split", "50:25:25"),
        *("--output_dir", str(tmp_path / "run")),
    ]
    small = [
        "--max_epochs",
        "2",
        "--spatial_size",
        "[32, 32]",
        "--architecture",
        "UNet",
        "--filters",
        "[4, 8]",
        "--batch_size",
        "4",
    ]
    done = run_bundle("training", "--config_file", "configs/train.json", *words, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    done = run_bundle("--config_file", "configs/evaluate.json", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    datalist = json.loads((tmp_path / "prepared" / "datalist_segmentation.json").read_text())
    assert metrics["lesions"]["cases"] == len(datalist["test"]) > 0
