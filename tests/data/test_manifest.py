# SPDX-License-Identifier: Apache-2.0
"""Claims about reading CSV manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.data.cases import Listed
from bundle.data.check import list_dataset
from bundle.data.manifest import list_manifest
from bundle.data.patients import FROM_HEADER
from bundle.errors import InputError


def _write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "manifest.csv").write_bytes(text.encode(encoding))
    return folder / "manifest.csv"


ROWS = [
    Listed("a.png", ("m/a.png",), "benign", "P1"),
    Listed("b.png", ("m/b1.png", "m/b2.png"), "malignant", "P2"),
    Listed("c.png", (), "normal", None),
]


PLAIN = """image,mask,label,patient
a.png,m/a.png,benign,P1
b.png,m/b1.png;m/b2.png,malignant,P2
c.png,,normal,
"""
EXCEL = PLAIN.replace("image,mask,label", "Image, Mask ,LABEL").replace("benign", "Benign").replace("\n", "\r\n")
SEMICOLONS = """site;image;mask;label;patient
1;a.png;m/a.png;benign;P1
1;b.png;"m/b1.png; m/b2.png";malignant;P2
2;c.png;;normal;"""


TABS = PLAIN.replace(",", "\t")
BLANKS = PLAIN.replace("c.png", ",,,\nc.png") + ",,,\r\n" * 3
SAID = "sep=;\r\n" + PLAIN.replace(";", "|").replace(",", ";").replace("m/b1.png|m/b2.png", '"m/b1.png;m/b2.png"')


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((PLAIN, "utf-8"), (EXCEL, "utf-8-sig"), (SEMICOLONS, "utf-8"), (TABS, "utf-16"), (TABS, "utf-8")),
        *((BLANKS, "utf-8"), (SAID, "cp1252"), (SAID.replace("sep=;", '"sep=;"'), "utf-8")),
        *((PLAIN.replace(",", "|"), "utf-8"), (PLAIN.replace(",P1", ', "P1"'), "utf-8")),
        (PLAIN.replace("P1", "P1\u200b").replace("label", "\ufefflabel"), "utf-8"),
        *((PLAIN.replace("patient", name), "utf-8") for name in ("patient_id", "Patient ID", "PatientID", "PATIENT")),
    ],
)
def test_usual_dialects_read_alike(tmp_path: Path, text: str, encoding: str) -> None:
    assert list_manifest(_write(tmp_path, text, encoding)) == (ROWS, [])


def test_patient_is_optional(tmp_path: Path) -> None:
    listed, problems = list_manifest(_write(tmp_path, "image,mask,label\na.png,m.png,benign\n"))
    assert listed == [Listed("a.png", ("m.png",), "benign", None)]
    assert problems == []


@pytest.mark.parametrize(
    "column",
    [
        *("case", "Subject ID", "participant_no", "MRN", "patient name", "pid", "Study UID", "pat_id", "Pat.-Nr."),
        *("patinet", "paciente", "Fallnummer", "sujet", "患者", "Пациент", "record_id", "hospital no", "hash"),
    ],
)
def test_a_column_that_tells_whose_the_images_are_is_never_ignored(tmp_path: Path, column: str) -> None:
    text = f"image,mask,label,{column}\na.png,a_m.png,benign,X1\nb.png,b_m.png,benign,X1\nc.png,c_m.png,benign,X2\n"
    with pytest.raises(InputError, match=f"its column '{column}' seems to tell whose .* name it 'patient'"):
        list_manifest(_write(tmp_path, text))
    with_patient = text.replace(column, f"{column},patient").replace(",X", ",s,X")
    assert [item.patient for item in list_manifest(_write(tmp_path, with_patient))[0]] == ["X1", "X1", "X2"]


def test_an_identity_beside_a_patient_column_that_is_empty_is_not_ignored_either(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'case'"):
        list_manifest(_write(tmp_path, "image,mask,label,patient,case\na.png,m.png,benign,,7\n"))


@pytest.mark.parametrize("column", ["patient_age", "device_id", "class", "histology", "side", "Größe", "parity"])
def test_what_describes_images_is_no_identity(tmp_path: Path, column: str) -> None:
    rows = "".join(f"{n}.png,m.png,benign,{n % 2}\n" for n in range(6))
    assert len(list_manifest(_write(tmp_path, f"image,mask,label,{column}\n{rows}"))[0]) == 6


def test_a_hospital_s_number_is_no_identity_where_many_images_share_it(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,m.png,benign,{n % 2}\n" for n in range(60))
    assert len(list_manifest(_write(tmp_path, f"image,mask,label,centre no\n{rows}"))[0]) == 60


def test_rows_without_their_patient_among_others_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    list_manifest(_write(tmp_path, "image,mask,label,patient\na.png,m.png,benign,P1\nb.png,m.png,benign,\n"))
    assert "1 of 2 rows name no patient" in caplog.text


@pytest.mark.parametrize("spelling", ["p1", "P 1", "P1 "])
def test_a_patient_in_two_spellings_is_one(tmp_path: Path, spelling: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = f"a.png,m.png,benign,P1\nb.png,m.png,benign,{spelling}\nc.png,m.png,benign,P11\n"
    _, listed, _ = list_dataset(_write(tmp_path, f"image,mask,label,patient\n{rows}"))
    assert [item.patient for item in listed] == ["P1", "P1", "P11"]
    assert ("taken as one" in caplog.text) == (spelling.strip() != "P1")


def test_a_patient_s_number_is_one_however_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,m.png,benign,{text}\n" for n, text in enumerate(["7", "7.0", "007", "70", "7.1"]))
    _, listed, _ = list_dataset(_write(tmp_path, f"image,mask,label,patient\n{rows}"))
    assert [item.patient for item in listed] == ["7", "7", "7", "70", "7.1"]


def test_from_header_may_be_spelt_in_any_way(tmp_path: Path) -> None:
    rows = "a.dcm,m.png,benign,From Header\nb.dcm,m.png,benign,from_header\n"
    listed, _ = list_manifest(_write(tmp_path, f"image,mask,label,patient\n{rows}"))
    assert {item.patient for item in listed} == {FROM_HEADER}


def test_a_quote_that_swallows_rows_is_refused(tmp_path: Path) -> None:
    rows = 'a.png,m.png,benign,"P1\nb.png,m.png,benign,P2\nc.png,m.png,benign,P3"\nd.png,m.png,benign,P4\n'
    with pytest.raises(InputError, match="line 4 holds whole rows"):
        list_manifest(_write(tmp_path, f"image,mask,label,patient\n{rows}"))


def test_a_remark_of_several_lines_is_no_swallowed_row(tmp_path: Path) -> None:
    rows = 'a.png,m.png,benign,P1,"seen twice,\nonce by night, once by day"\n'
    assert list_manifest(_write(tmp_path, f"image,mask,label,patient,remark\n{rows}"))[0][0].patient == "P1"


def test_a_number_of_each_row_is_no_identity(tmp_path: Path) -> None:
    listed, problems = list_manifest(_write(tmp_path, "id,image,mask,label\n1,a.png,m.png,benign\n2,b.png,,normal\n"))
    assert (len(listed), problems) == (2, [])


def test_unknown_columns_are_named_with_the_nearest_that_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    list_manifest(_write(tmp_path, "image,mask,label,fram,age\na.png,m.png,benign,3,55\n"))
    assert "columns that are not read: 'fram' (did you mean 'frame'?), 'age'" in caplog.text


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 columns for patient"):
        list_manifest(_write(tmp_path, "image,mask,label,patient,Patient ID\na.png,m.png,benign,1,2\n"))


def test_frames_may_be_written_as_a_spreadsheet_does(tmp_path: Path) -> None:
    listed, _ = list_manifest(_write(tmp_path, "image,mask,label,frame\na.dcm,m.png,benign,12.0\n"))
    assert listed[0].image == "a.dcm[12]"


def test_missing_columns_are_named_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the columns mask, label; its header has image, class"):
        list_manifest(_write(tmp_path, "image,class\na.png,benign\n"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.png,m.png,cyst", "unknown class 'cyst'"),
        ("../a.png,m.png,benign", "not a path inside"),
        ("a.png,/etc/m.png,benign", "not a path inside"),
        (",m.png,benign", "not a path inside"),
        ("a.png,m.png", "more or fewer fields"),
        ("a.png,m.png,benign,x", "more or fewer fields"),
        ("z.png,m.png,benign", "listed twice"),
    ],
)
def test_bad_row_is_told_by_its_line_and_the_others_are_read(tmp_path: Path, row: str, reason: str) -> None:
    listed, problems = list_manifest(_write(tmp_path, f"image,mask,label\nz.png,m.png,benign\n{row}\n"))
    assert [item.image for item in listed] == ["z.png"]
    assert len(problems) == 1
    assert "manifest.csv line 3" in str(problems[0])
    assert reason in str(problems[0])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00\x01", PLAIN.encode("utf-16-le"), b"image,mask,label\n" + b"a" * 200_000 + b",m,benign\n"],
)
def test_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.csv"):
        list_manifest(tmp_path / "manifest.csv")
