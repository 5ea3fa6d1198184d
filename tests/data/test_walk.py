# SPDX-License-Identifier: Apache-2.0
"""Claims about folders as people have them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.data.check import check_dataset
from bundle.data.folder import find_images, list_images
from bundle.data.walk import MASK, UNLISTED, files_below, passed_over_line
from bundle.errors import InputError, NotAnImageError, UserError

BYTES = b"b\xf6se.png"  # Latin-1, as old ZIP files leave it


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _draw(path: Path, lesion: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(1, 250, (20, 30), dtype=np.uint8)
    if lesion:
        pixels = np.zeros((20, 30), np.uint8)
        pixels[5:12, 8:20] = 255
    Image.fromarray(pixels).save(path)


def _below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder)]


def _images(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)[0]]


def test_linked_folders_are_followed_and_loops_are_cut(tmp_path: Path) -> None:
    _touch(tmp_path, "archive/2023/a.png", "work/new.png", "work/deep/b.png")
    (tmp_path / "work/2023").symlink_to("../archive/2023", target_is_directory=True)
    (tmp_path / "work/deep/up").symlink_to(tmp_path / "work", target_is_directory=True)
    (tmp_path / "work/gone").symlink_to(tmp_path / "nowhere")
    assert _below(tmp_path / "work") == ["2023/a.png", "deep/b.png", "gone", "new.png"]


def test_an_image_that_is_only_a_broken_link_is_a_bad_one_and_is_not_passed_over(tmp_path: Path) -> None:
    _draw(tmp_path / "here.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / ".git/annex/objects/gone.png")
    (tmp_path / "round.png").symlink_to("round.png")
    images = list_images(tmp_path)
    assert images.readable == (str(tmp_path / "here.png"),)
    assert [Path(bad.path).name for bad in images.skipped] == ["gone.png", "round.png"]


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    _draw(tmp_path / "here.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "to_pipe.png").symlink_to("pipe.png")
    assert _below(tmp_path) == ["here.png"]


def test_a_folder_below_that_cannot_be_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _touch(tmp_path, "a.png", "shut/b.png")
    scan = os.scandir

    def refuse(place: str) -> object:
        if Path(place).name == "shut":
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    assert _below(tmp_path) == ["a.png"]
    assert f"{tmp_path / 'shut'}: cannot be read (Permission denied)" in caplog.text


def test_a_folder_that_is_there_keeps_its_own_name_beside_a_link_to_it(tmp_path: Path) -> None:
    _touch(tmp_path, "z/real/a.png")
    (tmp_path / "a_link").symlink_to("z/real", target_is_directory=True)
    assert _below(tmp_path) == ["z/real/a.png"]


def test_links_inside_linked_folders_are_followed(tmp_path: Path) -> None:
    _touch(tmp_path, "far/a.png", "farther/b.png", "here/c.png")
    (tmp_path / "here/far").symlink_to("../far", target_is_directory=True)
    (tmp_path / "far/farther").symlink_to("../farther", target_is_directory=True)
    assert _below(tmp_path / "here") == ["c.png", "far/a.png", "far/farther/b.png"]


def test_rests_of_a_mac_and_previews_of_a_disk_are_no_images(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "._a.png", ".DS_Store", "__MACOSX/._b.png", "__MACOSX/b.png", "@eaDir/a.png/S.jpg")
    images, passed = find_images(tmp_path)
    assert [path.name for path in images] == ["a.png"]
    assert passed_over_line(passed) == "passed over 2 files (hidden (name begins with '.'): 2)"


@pytest.mark.parametrize(
    "names",
    [
        ("benign (1).png", "benign (1)_mask.png", "benign (1)_MASK_1.png"),
        ("case001.png", "case001_tumor.png", "CASE001_other1.png"),
        ("Images/bus_0001-l.png", "Masks/mask_0001-l.png"),
        ("images/ALWI_000.png", "masks/ALWI_000.png"),
        ("Test_Image_7.png", "mask_7.png"),
        ("x.nii.gz", "x_mask.nii.gz"),
    ],
)
def test_masks_of_every_known_layout_are_counted_and_not_taken_for_images(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    _touch(tmp_path, *names)
    assert _images(tmp_path) == [names[0]]
    assert find_images(tmp_path)[1] == {MASK: len(names) - 1}


def test_a_mask_without_its_image_is_an_image(tmp_path: Path) -> None:
    _touch(tmp_path, "a_tumor.png", "mask_3.png", "Test_Image_4.png", "masks/b.png", "b.png")
    assert len(_images(tmp_path)) == 5


def test_other_files_are_counted_in_one_line_by_type(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "DICOMDIR", "b.txt", "c.TXT", "report.pdf", "viewer.exe", "d.docx", "e.mpg", "README")
    line = passed_over_line(find_images(tmp_path)[1])
    assert line == "passed over 8 files (DICOM directories: 1, of other types without suffix .docx .exe .mpg …: 7)"


def test_what_was_never_meant_to_be_an_image_is_counted_and_does_not_make_a_run_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _draw(tmp_path / "a.png")
    _touch(tmp_path, "report.dcm")

    def read(path: Path) -> None:
        if path.name == "report.dcm":
            raise NotAnImageError(path, "is a report", "name an image", "DICOM structured reports")

    monkeypatch.setattr("bundle.data.folder.read_image", read)
    with caplog.at_level(logging.WARNING):
        images = list_images(tmp_path)
    assert (len(images.readable), images.skipped) == (1, ())
    assert "passed over 1 file (DICOM structured reports: 1)" in caplog.text


def test_a_name_that_is_no_text_is_one_bad_file_and_the_rest_goes_on(tmp_path: Path) -> None:
    _draw(tmp_path / "good.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + BYTES)).write_bytes((tmp_path / "good.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    images = list_images(tmp_path)
    assert images.readable == (str(tmp_path / "good.png"),)
    (bad,) = images.skipped
    assert "UTF-8" in bad.reason
    str(bad).encode("utf-8")


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    for label in ("Benign", "MALIGNANT", "Normal"):
        _draw(tmp_path / f"set/{label}/{label.lower()} (1).png")
        if label != "Normal":
            _draw(tmp_path / f"set/{label}/{label.lower()} (1)_MASK.PNG", lesion=True)
    return tmp_path / "set"


def test_class_folders_and_masks_count_in_any_case(busi: Path) -> None:
    checked = check_dataset(busi)
    assert [(case.image, case.label) for case in checked.cases] == [
        ("Benign/benign (1).png", "benign"),
        ("MALIGNANT/malignant (1).png", "malignant"),
        ("Normal/normal (1).png", "normal"),
    ]
    assert checked.cases[0].masks == ("Benign/benign (1)_MASK.PNG",)


def test_a_mask_under_normal_is_never_a_normal_image(busi: Path) -> None:
    _draw(busi / "Normal/normal (1)_MASK.png", lesion=True)
    with pytest.raises(UserError, match=r"normal \(1\)_MASK\.png: the mask of a normal image marks"):
        check_dataset(busi)


@pytest.mark.parametrize("name", ["-mask", " mask", "_Mask (1)", "_mask.PNG", "_mask - Copy"])
def test_what_is_called_a_mask_in_another_way_is_never_a_normal_image(busi: Path, name: str) -> None:
    _draw(busi / f"Normal/normal (1){name}.png")
    with pytest.raises(UserError, match="is called a mask in another way"):
        check_dataset(busi)


def test_masks_may_be_numbered_without_a_line(busi: Path) -> None:
    _draw(busi / "Benign/benign (1)_mask2.png", lesion=True)
    assert check_dataset(busi).cases[0].masks == ("Benign/benign (1)_MASK.PNG", "Benign/benign (1)_mask2.png")


def test_a_class_whose_images_all_lie_deeper_is_never_left_out_in_silence(busi: Path) -> None:
    (busi / "Benign").rename(busi / "moved")
    (busi / "Benign").mkdir()
    (busi / "moved").rename(busi / "Benign/images")
    with pytest.raises(UserError, match="Benign: holds no image itself, and 1 in folders below"):
        check_dataset(busi)


def test_a_manifest_counts_in_any_case_and_a_broken_link_to_one_is_told(busi: Path) -> None:
    (busi / "Manifest.CSV").write_text("image,mask,label,patient\nNormal/normal (1).png,,normal,P1\n")
    assert [case.patient for case in check_dataset(busi).cases] == ["P1"]
    (busi / "Manifest.CSV").unlink()
    (busi / "manifest.csv").symlink_to(busi / "nowhere.csv")
    with pytest.raises(UserError, match=r"manifest\.csv: cannot be read"):
        check_dataset(busi)


def test_a_table_that_no_layout_reads_is_counted(busi: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(busi, "patients.csv")
    check_dataset(busi)
    assert "passed over 1 file (of other types .csv: 1)" in caplog.text


def test_a_class_folder_that_cannot_be_read_is_one_line(busi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterdir = Path.iterdir

    def refuse(folder: Path) -> object:
        if folder.name == "Benign":
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match="Benign: cannot be read"):
        check_dataset(busi)


def test_an_image_that_shows_nothing_is_flagged(busi: Path) -> None:
    Image.new("L", (30, 20)).save(busi / "Normal/normal (2).png")
    assert [case.flags for case in check_dataset(busi).cases if case.label == "normal"] == [(), ("blank",)]
    assert len(check_dataset(busi, leave_out=["blank"]).cases) == 3


def test_what_a_dataset_s_layout_does_not_take_up_is_counted_in_one_line(
    busi: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _draw(busi / "Benign/more/forgotten.png")
    _touch(busi, "readme.txt", "Benign/._benign (1).png", "Benign/Thumbs.db")
    with caplog.at_level(logging.WARNING):
        check_dataset(busi)
    (line,) = (record.getMessage() for record in caplog.records if "passed over" in record.getMessage())
    assert line.endswith(
        f"passed over 4 files (hidden (name begins with '.'): 1, {UNLISTED}: 1, of other types .db .txt: 2)"
    )


def test_a_dataset_s_file_whose_name_is_no_text_is_told_with_the_other_bad_ones(busi: Path) -> None:
    try:
        os.rename(busi / "Normal/normal (1).png", os.fsencode(busi) + b"/Normal/" + BYTES)
    except OSError:
        pytest.skip("this file system takes no such names")
    checked = check_dataset(busi, skip_bad=True)
    assert len(checked.cases) == 2
    assert checked.skipped[0]["path"].encode("utf-8").startswith(b"Normal/b")


def test_errors_cross_processes_with_all_that_they_say() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(NotAnImageError("a\udcf6", "b", "c", "kind")))  # noqa: S301
    assert (type(error), error.path, error.kind) == (NotAnImageError, "a\\udcf6", "kind")
    assert isinstance(error, InputError)


def test_clips_are_images_of_a_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4", "b.AVI", "c.mov", "d.mkv", "e.webm", "f.png", "g.mpg")
    assert _images(tmp_path) == ["a.mp4", "b.AVI", "c.mov", "d.mkv", "e.webm", "f.png"]
