# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import warm
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.config.check import check_file
from scripts.check_config import main

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = {"_target_": "Compose", "transforms": [{"_target_": "ScaleIntensityd", "keys": "image"}]}
GOOD: dict[str, Any] = {
    "imports": ["$import os", "$from pathlib import Path"],
    "bundle_root": ".",
    "dataset_dir": "no/such/folder",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "max_epochs": 2,
    "lr": 0.001,
    "records": "$sorted(os.listdir(@dataset_dir))",
    "network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 3},
    "network": "$@network_def.to(@device)",
    "loss": {"_target_": "DiceLoss", "sigmoid": True},
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": "@lr"},
    "train": {
        "preprocessing": COMPOSE,
        "dataset": {"_target_": "Dataset", "data": "@records", "transform": "@train#preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@##dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [{"_target_": "StatsHandler", "output_transform": "$lambda x: None"}],
        "trainer": {
            "_target_": "SupervisedTrainer",
            **{"max_epochs": "@max_epochs", "device": "@device", "train_data_loader": "@train#dataloader"},
            **{"network": "@network", "optimizer": "@optimizer", "loss_function": "@loss"},
            **{"inferer": "@train#inferer", "train_handlers": "@train#handlers"},
        },
    },
    "run": [{"_target_": "bundle.config.refuse_unknown_ids"}, "$@train#trainer.run()"],
    "training": "%run",
}


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "train.json").write_text(json.dumps(GOOD))
    return folder


def with_change(place: str, value: Any) -> dict[str, Any]:
    """A copy of GOOD with `value` at `place` (`train#trainer#max_epochs`)."""
    config = deepcopy(GOOD)
    item: Any = config
    *parents, last = place.split("#")
    for key in parents:
        item = item[int(key) if isinstance(item, list) else key]
    item[int(last) if isinstance(item, list) else last] = value
    return config


def faults(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """The lines that the script prints when it finds faults."""
    assert main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().out.splitlines()


def test_sound_config_is_ok_without_its_data(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(configs / "train.json")]) == 0
    assert capsys.readouterr().out == f"{configs / 'train.json'}: ok\n"


SEEDED = {
    "reference": ("optimizer#lr", "@lrr", "optimizer#lr: unknown id `@lrr`; nearest: lr"),
    "reference in an expression": ("network", "$@netwrok_def.to(@device)", "network: unknown id `@netwrok_def`"),
    "relative reference": ("train#dataloader#dataset", "@##datasets", "unknown id `@train#datasets`; nearest: train#"),
    "relative reference too far up": ("lr", "@####x", "lr: the relative id in '@####x' leaves the config"),
    "macro to an id": ("training", "%rum", "training: macro to an unknown id `rum`; nearest: run"),
    "macro to a file": ("training", "%no_such.json#run", "training: macro: no file no_such.json"),
    "target in a module": ("loss#_target_", "torch.nn.BCELos", "torch.nn has no `BCELos`, nearest: torch.nn.BCELoss"),
    "short target": ("loss#_target_", "DiceLos", "cannot import `DiceLos`; nearest: DiceLoss"),
    "module": ("loss#_target_", "no_such_package.Loss", "cannot import `no_such_package.Loss`; no module"),
    "unknown argument": ("loss#sigmoyd", True, "loss: unknown argument `sigmoyd` of DiceLoss; nearest: sigmoid"),
    "argument of an engine": ("train#trainer#max_epoch", 3, "train#trainer: unknown argument `max_epoch`"),
    "missing argument": ("network_def", {"_target_": "torch.nn.Conv2d"}, "missing argument `in_channels`, `out_cha"),
    "mode": ("loss#_mode_", "lazy", "loss: unknown `_mode_` 'lazy'; allowed: default, callable, debug"),
    "keyword": ("train#inferer", {"_taget_": "SimpleInferer"}, "unknown keyword `_taget_`; nearest: _target_"),
    "expression": ("lr", "$1e-3 *", "lr: syntax error in '$1e-3 *': invalid syntax"),
    "statement": ("lr", "$x = 1", "lr: syntax error in '$x = 1'"),
    "name": ("records", "$glob.glob(@dataset_dir)", "records: name `glob` in"),
    "import": ("imports#0", "$import oss", "imports#0: cannot import `oss`: ModuleNotFoundError"),
    "imported name": ("imports#1", "$from pathlib import Pathh", "cannot import `Pathh` from `pathlib`; nearest: Path"),
    "import list": ("imports#0", "$import os, sys", "MONAI imports only the first name"),
    "circle": ("lr", "@optimizer", "circular reference: "),
    "circle of one": ("lr", "$@lr * 2", "lr: circular reference: lr -> lr"),
    "unused id": ("max_epoch", 3, "max_epoch: used by nothing; nearest: max_epochs"),
    "metadata": ("lr", "@_meta_#version", "lr: refers to `@_meta_`"),
    "key": ("train#inferer", {"a#b": "x"}, "train#inferer#a#b: a key with `#` or `::` works only"),
    "hash": ("dataset_dir", "data/set #2", "dataset_dir: MONAI turns `#` into `::`"),
    "value of an argument": ("network_def#in_channels", -1, "network_def: RuntimeError: Trying to create tensor"),
    "value of a transform": ("train#preprocessing#transforms#0#keys", [], "train#preprocessing#transforms#0: "),
}


@pytest.mark.parametrize(("place", "value", "expected"), SEEDED.values(), ids=SEEDED)
def test_seeded_fault_is_found(
    configs: Path, capsys: pytest.CaptureFixture[str], place: str, value: Any, expected: str
) -> None:
    file = configs / "train.json"
    (configs / "metadata.json").write_text('{"version": "1.0"}')
    file.write_text(json.dumps(with_change(place, value)))
    lines = faults(capsys, file)
    assert any(expected in line for line in lines), lines
    assert all(line.startswith(f"{file}: ") for line in lines)


TEXTS = {
    "JSON syntax": ("a.json", '{"lr": 1,\n "x": }', "2:7: JSON syntax: Expecting value"),
    "JSON duplicate": ("a.json", '{"device": "cpu", "device": "cuda"}', "device: duplicate key"),
    "YAML syntax": ("a.yaml", "lr: [1,\nx: 2", "YAML syntax"),
    "YAML duplicate": ("a.yaml", "device: cpu\ndevice: cuda\n", "2:1: duplicate key `device`"),
    "YAML number": ("a.yaml", "device: cpu\nrun: [1e-4]\n", "2:7: `1e-4` is read as a string, not as 0.0001"),
    "YAML merge key": ("a.yaml", "imports: &a {x: 1}\nrun:\n  <<: *a\n", "3:3: merge key `<<`"),
    "YAML tag": ("a.yaml", "run: !!python/name:os.system\n", "1:6: YAML syntax: could not determine a constructor"),
    "YAML key": ("a.yaml", "run: {on: 1}\n", "1:7: the key `on` is no text in YAML"),
    "list": ("a.yaml", "[1, 2]\n", "1:1: a config is a mapping of ids, this is a list"),
    "empty": ("a.yaml", "", "this is a NoneType"),
}


@pytest.mark.parametrize(("name", "text", "expected"), TEXTS.values(), ids=TEXTS)
def test_fault_in_the_text_is_found_with_its_place(
    configs: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, expected: str
) -> None:
    (configs / name).write_text(text)
    lines = faults(capsys, configs / name)
    assert any(line.startswith(f"{configs / name}: ") and expected in line for line in lines), lines


def test_bytes_that_are_no_text_are_a_fault(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (configs / "a.json").write_bytes(b"\x89PNG\xff")
    assert "not a text file in UTF-8" in faults(capsys, configs / "a.json")[0]


def test_quoted_number_in_yaml_is_meant_as_text(configs: Path) -> None:
    (configs / "a.yaml").write_text("run: ['1e-4', 1.0e-4, 2024-01-01, v1, nan]\n")
    assert main([str(configs / "a.yaml")]) == 0


def test_all_faults_are_reported_and_each_once(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_change("run#1", "$@trainn.run()")  # `training` is a copy of `run`
    config |= {"lr": "$1 +", "loss": {"_target_": "DiceLos"}, "typo": 1}
    (configs / "train.json").write_text(json.dumps(config))
    lines = faults(capsys, configs / "train.json")
    assert sorted(line.split(": ")[1] for line in lines) == ["loss", "lr", "run#1", "typo"]


def test_one_broken_component_is_reported_where_it_breaks(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (configs / "train.json").write_text(json.dumps(with_change("network_def#in_channels", -1)))
    lines = faults(capsys, configs / "train.json")
    assert [line.split(": ")[1] for line in lines] == ["network_def"]
    assert main([str(configs / "train.json"), "--no-instantiate"]) == 0


def test_nothing_runs_and_no_data_is_touched(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch = {"_target_": "pathlib.Path.touch", "self": "$Path('touched')"}
    config = {**GOOD, "initialize": ["$open('touched', 'w')"], "finalize": [touch], "extra": touch}
    config["train"] = {**GOOD["train"], "dataset": {"_target_": "Dataset", "data": "$open('touched', 'w')"}}
    config["run"] = [*GOOD["run"], "@extra", "@records"]
    (configs / "train.json").write_text(json.dumps(config))
    assert main([str(configs / "train.json")]) == 0
    assert not Path("touched").exists()


def test_overlay_is_merged_over_the_file_that_its_comment_names(
    configs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = configs / "overlay.yaml"
    text = "network_def#in_channels: 2\nlr: 1.0e-4\n+imports: ['$import glob']\n"
    overlay.write_text("# SPDX-License-Identifier: Apache-2.0\n# overlay of: train.json\n" + text)
    assert main([str(overlay)]) == 0
    overlay.write_text(text)
    assert main([str(overlay), "--base", str(configs / "train.json")]) == 0
    capsys.readouterr()
    assert any("network_def" in line for line in faults(capsys, overlay))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trian#trainer#max_epochs: 3", "trian#trainer#max_epochs: no such place in the config; nearest: train#"),
        ("train#trainer#max_epoch: 3", "train#trainer: unknown argument `max_epoch` of SupervisedTrainer"),
        ("max_epoch: 3", "max_epoch: used by nothing; nearest: max_epochs"),
        ("+import: ['$import glob']", "+import: nothing to extend: no id `import`; nearest: imports"),
        ("+imports: 3", "+imports: the value does not fit"),
    ],
)
def test_fault_of_an_overlay_is_found(
    configs: Path, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    overlay = configs / "overlay.yaml"
    overlay.write_text(f"# overlay of: train.json\n{line}\n")
    lines = faults(capsys, overlay)
    assert any(expected in found for found in lines), lines


def test_id_of_the_base_that_an_overlay_leaves_unused_is_no_fault(configs: Path) -> None:
    (configs / "overlay.yaml").write_text("# overlay of: train.json\ntrain#dataset#data: []\n")
    assert main([str(configs / "overlay.yaml")]) == 0


def test_overlay_of_a_missing_file_names_the_nearest(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (configs / "overlay.yaml").write_text("# overlay of: trian.json\nlr: 0.1\n")
    lines = faults(capsys, configs / "overlay.yaml")
    assert any("no file" in line and "nearest: train.json" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "code"), [("max_epochs=3", 0), ("max_epoch=3", 1), ("loss#sigmoid=False", 0), ("lr=1e-4", 0)]
)
def test_overrides_are_checked_as_on_the_command_line_of_monai(configs: Path, override: str, code: int) -> None:
    assert main([str(configs / "train.json"), "--override", override]) == code


def test_missing_file_is_the_users_mistake(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(configs / "trian.json")]) == 2
    error = capsys.readouterr().err
    assert "no such file; nearest: train.json" in error
    assert error.count("\n") == 1


def test_override_without_a_value_is_the_users_mistake(configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(configs / "train.json"), "--override", "max_epochs"]) == 2
    assert "write ID=VALUE" in capsys.readouterr().err


TEXT = st.text("ab@$%#:_. 1[]()", max_size=8) | st.sampled_from(["@a", "%b", "$@a#b", "@##a", "@_meta_#x", "Compose"])
KEY = st.sampled_from(["a", "b", "_target_", "_mode_", "_desc_", "a#b", "+a", "run", "a::b"])
VALUE = st.recursive(
    TEXT | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(KEY, VALUE, max_size=5))
def test_any_config_gives_faults_and_never_a_crash(tmp_path_factory: pytest.TempPathFactory, config: dict) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(config))
    assert isinstance(check_file(file, instantiate=False), list)


def test_script_runs_from_any_folder(configs: Path, tmp_path: Path) -> None:
    (configs / "b.json").write_text('{"typo": 1}')
    command = [sys.executable, str(ROOT / "scripts" / "check_config.py"), "configs/train.json", "configs/b.json"]
    ended = warm.run(command, tmp_path, os.environ)
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == ["configs/train.json: ok", "configs/b.json: typo: used by nothing"]
