# SPDX-License-Identifier: Apache-2.0
"""Claims about reading the tables and finding the files of published datasets."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bundle.data.bus_uclm import list_bus_uclm
from bundle.data.named_files import Files, find_file
from bundle.data.tables import MAX_TABLE_BYTES, fold, read_csv, read_xlsx
from bundle.errors import InputError

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00", exclude_categories=["Cs"]), max_size=8)


@SETTINGS
@given(
    rows=st.lists(st.tuples(cells, cells, cells), max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_every_dialect_reads_alike(tmp_path: Path, rows: list, delimiter: str, encoding: str, end: str) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end)
    writer.writerows([("Image", " Label ", "Mask_tumor_filename"), *rows])
    (tmp_path / "t.csv").write_bytes(buffer.getvalue().encode(encoding))
    table = read_csv(tmp_path / "t.csv")
    table.require("IMAGE", "label", "Mask tumor filename")
    found = [tuple(row[key] for key in ("image", "label", "masktumorfilename")) for _, row in table.rows]
    assert found == [tuple(cell.strip() for cell in row) for row in rows if any(cell.strip() for cell in row)]


@SETTINGS
@given(content=st.binary(max_size=200))
def test_no_bytes_make_a_listing_fail_in_another_way_than_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "masks").mkdir(exist_ok=True)
    (tmp_path / "INFO.csv").write_bytes(b"Image;Label\n" + content)
    try:
        listed, problems = list_bus_uclm(tmp_path)
    except InputError as error:
        problems, listed = [error], []
    assert not listed
    assert all("INFO.csv" in str(problem) for problem in problems)
    (tmp_path / "t.xlsx").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.xlsx"):
        read_xlsx(tmp_path / "t.xlsx", "Image")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n\n"1\n2",3\n4,5\n')
    assert [line for line, _ in read_csv(tmp_path / "t.csv").rows] == [4, 5]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ID,Case,Pathology,pathology \n1,2,benign,malignant\n")
    with pytest.raises(InputError, match="has 2 columns for Pathology; keep one"):
        read_csv(tmp_path / "t.csv").require("ID", "Case", "Pathology")


def test_short_rows_are_filled_and_windows_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("Id;Größe\n1\n".encode("cp1252"))
    assert read_csv(tmp_path / "t.csv").rows == ((2, {"id": "1", fold("Größe"): ""}),)


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * (MAX_TABLE_BYTES + 1))
    with pytest.raises(InputError, match="unpacks to 50 MB"):
        read_xlsx(tmp_path / "bomb.xlsx", "Image")


def test_without_openpyxl_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match="pip install openpyxl"):
        read_xlsx(tmp_path / "t.xlsx", "Image")


def test_formulas_are_not_evaluated(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    workbook.active.append(["Image", "Label"])
    workbook.active.append(["a.png", "=1+1"])
    workbook.save(tmp_path / "t.xlsx")
    assert read_xlsx(tmp_path / "t.xlsx", "image").rows == ((2, {"image": "a.png", "label": ""}),)


def test_files_are_found_whatever_their_case_and_suffix(tmp_path: Path) -> None:
    for name in ("Images/A_1.PNG", "copies/Images/a_1.png", "Masks/a_1.jpg", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    files = Files(tmp_path)
    assert files.find("a_1.png", "images") == "Images/A_1.PNG"
    assert files.find("a_1", "MASKS") == "Masks/a_1.jpg"
    assert files.find("sub/a_1.png", "masks") == "Masks/a_1.jpg"
    assert files.find("a_2.png") is None
    assert ".hidden.png" not in files.paths


def test_open_workbooks_of_excel_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "~$data.xlsx").touch()
    assert find_file(tmp_path, r".*\.xlsx") is None
    (tmp_path / "DATA.XLSX").touch()
    assert find_file(tmp_path, r".*\.xlsx") == tmp_path / "DATA.XLSX"
