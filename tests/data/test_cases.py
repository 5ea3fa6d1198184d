# SPDX-License-Identifier: Apache-2.0
"""Claims about cases.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.data.cases import Case, CaseList, read_cases, relative_path, write_cases
from bundle.errors import InputError

CASES = (
    Case("benign/b (1).png", ("benign/b (1)_mask.png",), "benign", None, (20, 30), "aa", "bb", "g0001"),
    Case("normal/ü.png", (), "normal", "P1", (21, 31), "cc", "dd", "g0002"),
)
LIST = CaseList("toy", "busi", False, "ee", CASES, ({"path": "x.png", "reason": "empty", "mend": "replace it"},))


def test_cases_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.json", LIST)
    assert read_cases(tmp_path / "cases.json") == LIST
    assert json.loads((tmp_path / "cases.json").read_text("utf-8"))["dataset_sha256"] == LIST.dataset_sha256


def test_checksum_ignores_order_and_sees_pixels_masks_and_labels() -> None:
    checksum = LIST.dataset_sha256
    assert replace(LIST, cases=CASES[::-1]).dataset_sha256 == checksum
    for field in ("sha256", "mask_sha256", "label", "image", "patient"):
        changed = Case(**{**vars(CASES[0]), field: "x"})
        assert replace(LIST, cases=(changed, CASES[1])).dataset_sha256 != checksum


def test_changed_cases_are_refused(tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.json", LIST)
    content = json.loads((tmp_path / "cases.json").read_text("utf-8"))
    content["cases"][0]["label"] = "malignant"
    (tmp_path / "cases.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="was changed"):
        read_cases(tmp_path / "cases.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cases": [1]}', '{"cases": 3, "skipped": []}', "[" * 100_000])
def test_file_that_is_no_case_list_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(InputError, match=r"cases\.json"):
        read_cases(tmp_path / "cases.json")


@pytest.mark.parametrize(
    "text", ["", " ", "/etc/passwd", "../a.png", "a/../../b.png", "C:\\a.png", "..\\a.png", "\\\\host\\a"]
)
def test_path_out_of_the_folder_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        relative_path(text)


def test_windows_separators_are_understood() -> None:
    assert relative_path(".\\benign\\a (1).png") == "benign/a (1).png"
