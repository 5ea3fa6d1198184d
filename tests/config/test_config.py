# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigWorkflow

from bundle.config import nearest, one_line_errors, refuse_unknown_ids, unused_ids
from bundle.errors import InputError, UserError

ROOT = Path(__file__).resolve().parents[2]
GUARD = "bundle.config.refuse_unknown_ids"
CONFIG = {
    "max_epochs": 2,
    "records": [1, 2],
    "network_def": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1},
    "train": {"dataset": {"_target_": "monai.data.Dataset", "data": "@records"}, "epochs": "@max_epochs"},
    "run": [{"_target_": GUARD}, "$(@train#epochs, @train#dataset, print('RAN'))"],
    "training": "%run",
}


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    file = tmp_path / "configs" / "train.json"
    file.parent.mkdir()
    file.write_text(json.dumps(CONFIG))
    return str(file)


def run_workflow(config_file: str | list[str], **override: Any) -> None:
    workflow = ConfigWorkflow(config_file, workflow_type="train", **override)
    workflow.initialize()
    workflow.run()


def message_of(error: BaseException) -> str:
    assert isinstance(error.__cause__, UserError)
    return str(error.__cause__)


def test_config_without_a_typo_runs(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_workflow(config_file, max_epochs=3)
    assert "RAN" in capsys.readouterr().out


@pytest.mark.parametrize(("typo", "meant"), [("max_epoch", "max_epochs"), ("network_deff", "network_def")])
def test_misspelt_override_stops_the_run_and_names_the_id_meant(
    config_file: str, typo: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError) as caught:
        run_workflow(config_file, **{typo: 3})
    message = message_of(caught.value)
    assert f"`{typo}`" in message
    assert f"nearest: {meant}" in message
    assert "\n" not in message
    assert "RAN" not in capsys.readouterr().out


def test_misspelt_id_of_an_overlay_is_refused(config_file: str) -> None:
    overlay = Path(config_file).with_name("overlay.yaml")
    overlay.write_text("epoch: 3\n")
    with pytest.raises(RuntimeError) as caught:
        run_workflow([config_file, str(overlay)])
    assert "`epoch`" in message_of(caught.value)
    assert "train#epochs" in message_of(caught.value)


def test_id_that_an_override_leaves_without_use_is_no_typo(config_file: str) -> None:
    run_workflow(config_file, **{"train#dataset#data": []})  # as MONAI Label does; `records` loses its last use


def test_ids_that_tools_add_are_allowed(config_file: str, tmp_path: Path) -> None:
    run_workflow(config_file, device="cpu", bundle_root=str(tmp_path), output_dir=str(tmp_path), run_name="first")


def test_new_id_that_a_new_reference_uses_is_allowed(config_file: str) -> None:
    run_workflow(config_file, **{"length": 4, "train#epochs": "$@length + 1"})


def test_extra_ids_are_allowed(config_file: str) -> None:
    run_workflow(config_file, note="of the user", run=[{"_target_": GUARD, "extra": ["note"]}])


def test_guard_outside_a_config_says_where_it_belongs() -> None:
    with pytest.raises(UserError, match="`run` list"):
        refuse_unknown_ids()


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_command_line_prints_one_line_and_exits_2(config_file: str, tmp_path: Path) -> None:
    options = ["--config_file", config_file, "--max_epoch", "3"]
    ended = warm.run([sys.executable, "-m", "monai.bundle", "run", "training", *options], tmp_path, ENVIRONMENT)
    assert ended.returncode == 2
    assert len([line for line in ended.stderr.splitlines() if line.startswith("error: config id `max_epoch`")]) == 1
    assert "Traceback" not in ended.stderr
    assert "RAN" not in ended.stdout


def test_python_caller_gets_an_exception_and_not_an_exit(config_file: str, tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(
        "import monai.bundle\n"
        f"try: monai.bundle.run(run_id='training', config_file={config_file!r}, max_epoch=3)\n"
        "except RuntimeError as error: print(type(error.__cause__).__name__)"
    )
    ended = warm.run([sys.executable, str(script)], tmp_path, ENVIRONMENT)
    assert ended.stdout.strip().endswith("UserError")
    assert ended.returncode == 0


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[a-z]{3,9}", fullmatch=True), min_size=2, max_size=8, unique=True), st.data())
def test_exactly_the_unreferenced_ids_are_unused(names: list[str], data: st.DataObject) -> None:
    ids = [f"id_{name}" for name in names]
    used = data.draw(st.sets(st.sampled_from(ids)))
    forms = st.sampled_from(["@{}", "$len(@{})", "@{}#0", "%{}", "%{}::key"])
    config = {id_: 1 for id_ in ids} | {"run": [data.draw(forms).format(id_) for id_ in sorted(used)]}
    assert unused_ids(config) == [id_ for id_ in ids if id_ not in used]


def test_reference_inside_plain_text_does_not_count_as_use() -> None:
    assert unused_ids({"lr": 1, "run": ["set by @lr"]}) == ["lr"]


def test_another_name_of_the_run_list_is_an_entry_point() -> None:
    assert unused_ids({"run": ["$1"], "inferring": "%run"}) == []
    assert unused_ids({"run": ["$1"], "inferring": ["$1"]}) == []  # the same, once MONAI has replaced the macro
    assert unused_ids({"run": ["$1"], "inferring": ["$2"]}) == ["inferring"]


def test_nearest_says_nothing_when_nothing_is_near() -> None:
    assert nearest("zzz", ["max_epochs", "lr"]) == ""
    assert nearest("max_epoch", ["train#trainer#max_epochs"]) == "; nearest: train#trainer#max_epochs"


def test_user_error_of_a_script_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    @one_line_errors
    def main(argv: list[str] | None = None) -> int:
        if argv:
            raise InputError(argv[0], "truncated\nPNG", "replace it")
        return 0

    assert main() == 0
    assert main(["case.png"]) == 2
    assert capsys.readouterr().err == "error: case.png: truncated PNG; replace it\n"


def test_bug_in_a_script_keeps_its_traceback() -> None:
    @one_line_errors
    def main(argv: list[str] | None = None) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


def test_import_of_the_helper_does_not_wait_for_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys, bundle.config; print('torch' in sys.modules)"]
    ended = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.stdout.strip() == "False"
