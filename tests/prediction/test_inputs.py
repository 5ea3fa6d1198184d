# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.inputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundle.data.names import output_name
from bundle.errors import InputError, UserError
from bundle.prediction.inputs import MAX_FRAMES, FrameChoice, list_inputs, read_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Ann/a.png", "Ann/a_mask.png", "Bob/a.png", "Bob/b.dcm", "Bob/notes.txt"):
        (tmp_path / "ward" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ward" / name).write_bytes(b"x")
    return tmp_path / "ward"


def _names(given: list[Path], listed: list[Path] | None = None, output: Path | None = Path("out")) -> list[str]:
    return [output_name(file.path, file.folder).as_posix() for file in list_inputs(given, listed or [], output)[0]]


def test_names_are_relative_to_the_folder_that_was_given(folder: Path) -> None:
    assert _names([folder]) == ["Ann/a.png", "Bob/a.png", "Bob/b.dcm.png"]
    assert _names([folder / "Bob"]) == ["a.png", "b.dcm.png"]
    assert _names([folder / "Ann" / "a.png"]) == ["a.png"]


def test_listed_files_are_named_below_what_they_have_in_common(folder: Path) -> None:
    listed = [folder / "Ann" / "a.png", folder / "Bob" / "a.png"]
    assert _names([], listed) == ["Ann/a.png", "Bob/a.png"]
    assert _names([], listed[:1]) == ["a.png"]


def test_a_file_named_twice_is_taken_once(folder: Path) -> None:
    assert _names([folder / "Bob", folder / "Bob" / "a.png", folder / "Ann" / ".." / "Bob" / "b.dcm"]) == [
        "a.png",
        "b.dcm.png",
    ]


def test_two_files_of_one_name_are_refused_where_they_would_be_written(folder: Path) -> None:
    with pytest.raises(UserError, match="would both be written as"):
        _names([folder / "Ann", folder / "Bob"])
    assert len(_names([folder / "Ann", folder / "Bob"], output=None)) == 3


def test_a_list_is_read_line_by_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{folder}/Ann/a.png\r\n\n  {folder}/Bob/a.png \n")
    assert read_list(tmp_path / "list.txt") == [folder / "Ann" / "a.png", folder / "Bob" / "a.png"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_a_list_that_names_nothing_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match="one a line"):
        read_list(tmp_path / "list.txt")
    with pytest.raises(UserError, match="one a line"):
        read_list(tmp_path / "missing.txt")


def test_lists_are_read_as_windows_writes_them(folder: Path, tmp_path: Path) -> None:
    text = f"{folder}/Ann/ä.png\r\n{folder}/Bob/a.png"
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "list.txt").write_bytes(text.encode(encoding))
        assert read_list(tmp_path / "list.txt") == [folder / "Ann" / "ä.png", folder / "Bob" / "a.png"]


def test_a_table_may_name_frames_in_any_dialect(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"ID\tFrame\t Image \r\n1\t3\ta.dcm\r\n2\t\tb.png\r\n\t\t\r\n")
    assert read_list(tmp_path / "list.csv") == [Path("a.dcm[3]"), Path("b.png")]
    (tmp_path / "list.csv").write_text("image,frame\na.dcm,last\n")
    with pytest.raises(UserError, match="frame 'last' is no number"):
        read_list(tmp_path / "list.csv")


@pytest.mark.parametrize("column", ["image", "path"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_read_by_its_column_of_paths(tmp_path: Path, column: str, ending: str) -> None:
    listed, names = tmp_path / f"list.{ending}", ["a, b.png", None, "sub/ü.dcm"]
    if ending == "csv":
        listed.write_bytes(f'\ufeffgroup,{column}\r\n1,"a, b.png"\r\n2,\r\n3,sub/ü.dcm\r\n'.encode())
    else:
        arrow = pytest.importorskip("pyarrow.parquet", reason="needs requirements-ray.txt")
        table = pytest.importorskip("pyarrow").table({"group": [1, 2, 3], column: names})
        arrow.write_table(table, listed)
    assert read_list(listed) == [Path("a, b.png"), Path("sub/ü.dcm")]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("frames", [[0, 12, None], [0.0, 12.0, float("nan")], ["0", "12", ""]])
def test_a_column_of_frames_names_one_of_each_file(tmp_path: Path, ending: str, frames: list[object]) -> None:
    listed, names = tmp_path / f"list.{ending}", ["a.dcm", "b.dcm", "c.png"]
    if ending == "parquet":
        arrow = pytest.importorskip("pyarrow.parquet", reason="needs requirements-ray.txt")
        arrow.write_table(pytest.importorskip("pyarrow").table({"Image": names, "FRAME": frames}), listed)
    else:
        cells = ["" if frame is None or frame != frame else str(frame) for frame in frames]
        rows = [("Image", "FRAME"), *zip(names, cells, strict=True)]
        listed.write_text("\n".join(("," if ending == "csv" else "\t").join(row) for row in rows))
    assert read_list(listed) == [Path("a.dcm[0]"), Path("b.dcm[12]"), Path("c.png")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"image,Image\nx.png,y.png\n", "it has 2 columns for image"),
        ("a.csv", b"path,frame, Frame\nx.dcm,1,2\n", "it has 2 columns for frame"),
        ("a.csv", b"file,class\nx.png,1\n", "its columns are file, class.*; .* column image or path"),
        ("a.csv", b"", "its columns are none"),
        ("a.csv", b"image\n\n", "names no file"),
        ("a.csv", b"\xff\xfeimage", "cannot be read as a list"),
        ("a.parquet", b"PAR1 no table", "cannot be read as a list"),
    ],
)
def test_a_table_that_is_no_list_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="needs requirements-ray.txt")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_list(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("frames", [1, 2, 19, 20, 21, 65, 400])
def test_at_most_twenty_frames_are_looked_at_unless_told_otherwise(frames: int) -> None:
    chosen = list(FrameChoice().choose(Path("a.dcm"), frames))
    if frames == 1:
        assert chosen == [None]
        return
    assert min(frames, MAX_FRAMES / 2) <= len(chosen) <= MAX_FRAMES
    assert chosen[0] == 0
    assert chosen[-1] >= frames - frames / len(chosen) - 1  # spread to the end


def test_frames_are_chosen_as_they_are_asked_for() -> None:
    path = Path("a.dcm")
    assert list(FrameChoice(frame=7).choose(path, 10)) == [7]
    assert list(FrameChoice(every=4).choose(path, 10)) == [0, 4, 8]
    assert list(FrameChoice(all=True).choose(path, 65)) == list(range(65))
    assert list(FrameChoice(all=True).choose(Path("a.dcm[3]"), 10)) == [3]
    with pytest.raises(InputError, match="has no frame 10"):
        FrameChoice(frame=10).choose(path, 10)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "empty")
    with pytest.raises(UserError, match="empty: no readable image"):
        _names([tmp_path / "empty"])
