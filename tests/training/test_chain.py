# SPDX-License-Identifier: Apache-2.0
"""The chain: steps in order, finished ones skipped, a failed one named with its log."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bundle.data.phantom import make_phantom
from bundle.errors import UserError
from bundle.training.chain import RECIPES, plan_chain
from bundle.training.steps import Step, run_steps
from scripts import reproduce


def test_a_finished_step_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result").write_text("")
    run_steps([Step("train", ("--config_file", "configs/no-such.json"), tmp_path / "result")], tmp_path / "logs")
    assert capsys.readouterr().out == "[1/1] train: done before\n"


def test_a_step_that_was_done_with_other_settings_is_never_taken_for_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "step.py"
    script.write_text("import pathlib, sys; pathlib.Path(sys.argv[-1]).touch()")
    logs, result = tmp_path / "out" / "logs", tmp_path / "out" / "run" / "result"
    result.parent.mkdir(parents=True)

    def step(data: str, epochs: int, folder: Path = tmp_path / "out") -> Step:
        words = ("--dataset_dir", data, "--max_epochs", str(epochs), str(folder / "run" / "result"))
        return Step("train", words, folder / "run" / "result", (str(script),))

    run_steps([step("/here", 2)], logs, places={"/here"})
    run_steps([step("/there", 2)], logs, places={"/there"})
    assert capsys.readouterr().out.endswith("done before\n")
    with pytest.raises(UserError, match=r"other settings \(2 then, 60 now\); .* or delete .*/run"):
        run_steps([step("/here", 60)], logs, places={"/here"})
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    run_steps([step("/here", 2, moved)], moved / "logs", places={"/here"})


def test_a_failed_step_is_named_with_its_last_line_and_its_log(tmp_path: Path) -> None:
    step = Step("train it", ("--config_file", "configs/no-such.json"), tmp_path / "result")
    with pytest.raises(UserError, match=r"train it: .*no-such\.json.*\(log: .*train_it\.log\)"):
        run_steps([step], tmp_path / "logs")
    assert (tmp_path / "logs" / "train_it.log").read_text().startswith("python -W ignore -m monai.bundle run")


def test_a_step_runs_in_the_bundle_s_root_whose_configs_it_names(tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(
        f"import pathlib; pathlib.Path('configs/train.json').stat(); pathlib.Path({str(tmp_path / 'result')!r}).touch()"
    )
    run_steps([Step("step", (), tmp_path / "result", (str(script),))], tmp_path / "logs")


def test_the_paper_s_classifiers_share_one_segmenter(tmp_path: Path) -> None:
    steps = plan_chain(tmp_path / "data", tmp_path, "paper", 0, row=1, classifier_rows=(1, 2, 3))
    names = [step.name for step in steps]
    assert len(names) == len(set(names)) == 9
    assert [name for name in names if name.startswith("train")] == [
        "train segmentation paper_row1_seed0",
        *(f"train classification paper_row{row}_seed0" for row in (1, 2, 3)),
    ]
    folder = str(tmp_path / "segmentation_paper_row1_seed0")
    assert all(folder in step.words for step in steps if "train classification" in step.name)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_names_its_networks_whatever_is_shipped(recipe: str, tmp_path: Path, root: Path) -> None:
    steps = plan_chain(tmp_path / "data", tmp_path, recipe, 0)
    for stage, base in (("segmentation", "train.json"), ("classification", "train_classifier.json")):
        step = next(step for step in steps if step.name == f"train {stage} {recipe}_seed0")
        files = step.words[step.words.index("--config_file") + 1]
        overlay = next(name for name in RECIPES[recipe] if name in files)
        assert files == f"['configs/{base}', 'configs/{overlay}.yaml']"
        assert "architecture" in yaml.safe_load((root / f"configs/{overlay}.yaml").read_text())


def test_ground_truth_masks_stand_in_a_folder_named_so(tmp_path: Path) -> None:
    steps = plan_chain(tmp_path / "data", tmp_path, "ours", 3, masks=("predicted", "oracle"))
    for step in steps:
        if "oracle" in step.words:
            assert step.result.parts[len(tmp_path.parts)].startswith("classification_oracle_")


def test_cross_validation_tests_each_image_by_networks_of_the_other_folds_and_pools(tmp_path: Path) -> None:
    steps = plan_chain(tmp_path / "data", tmp_path, "ours", 0, folds=3, members=2)
    trained = [step for step in steps if step.name.startswith("train")]
    assert [step.name for step in trained] == [
        *(f"train segmentation ours_3folds_seed0_fold{fold}" for fold in range(3)),
        *(
            f"train classification ours_3folds_seed0_fold{fold}_member{member}"
            for fold in range(3)
            for member in range(2)
        ),
    ]
    for number, step in enumerate(trained):
        fold = number if number < 3 else (number - 3) // 2
        assert step.words[step.words.index("--split") + 1] == f"fold {fold} of 3"
    words = trained[-1].words
    assert words[words.index("--folds") + 1] == "3"
    assert all(str(step.result.parent).startswith(words[words.index("--segmentation_dir") + 1]) for step in trained[:3])
    seeds = {step.words[step.words.index("--seed") + 1] for step in trained[3:]}
    assert len(seeds) == 2
    pooled = [step for step in steps if step.name.startswith("pool")]
    assert [step.name.split()[1] for step in pooled] == ["segmentation", "classification"]
    for step, tested in zip(pooled, (trained[:3], trained[3:]), strict=True):
        assert [str(step.result.parent) for step in tested] == list(step.words[: len(tested)])


def _write(path: Path, waits_for: Path | None = None, result: bool = True) -> Step:
    """A step of a script that ends at once, or fails where what it needs is not there."""
    script = path.with_suffix(".py")
    check = f"assert pathlib.Path({str(waits_for)!r}).exists(), 'too early'; " if waits_for else ""
    touch = f"pathlib.Path({str(path)!r}).touch()" if result else "pass"
    script.write_text(f"import pathlib, time; {check}time.sleep(0.5); {touch}")
    return Step(path.name, (), path, (str(script),), (waits_for,) if waits_for else ())


def test_steps_run_at_once_but_wait_for_what_they_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = _write(tmp_path / "first"), _write(tmp_path / "second")
    last = _write(tmp_path / "last", waits_for=second.result)
    run_steps([first, second, last], tmp_path / "logs", jobs=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["[1/3] first …", "[2/3] second …"]
    assert "[3/3] last: done in" in lines[-1]


def test_by_default_a_training_runs_alone_and_two_others_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    first = replace(_write(tmp_path / "train"), trains=True)
    evaluate, segment = (_write(tmp_path / name, waits_for=first.result) for name in ("evaluate", "segment"))
    second = replace(_write(tmp_path / "train_again", waits_for=segment.result), trains=True)
    audit = _write(tmp_path / "audit", waits_for=segment.result)
    run_steps([first, evaluate, segment, second, audit], tmp_path / "logs")
    told = [line.split("] ")[1].split(": done")[0] for line in capsys.readouterr().out.splitlines()]
    assert told[:4] == ["train …", "train", "evaluate …", "segment …"]
    assert sorted(told[4:6]) == ["evaluate", "segment"]
    assert told[6:] == ["train_again …", "train_again", "audit …", "audit"]


def test_a_failure_stops_the_others_and_what_no_step_makes_is_named(tmp_path: Path) -> None:
    failing, other = _write(tmp_path / "failing", result=False), _write(tmp_path / "other")
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"  # as below a shell's &
    (tmp_path / "other.py").write_text(deaf)
    begun = time.monotonic()
    with pytest.raises(UserError, match="failing"):
        run_steps([failing, other], tmp_path / "logs", jobs=2)
    assert time.monotonic() - begun < 30
    with pytest.raises(UserError, match="last: what it needs is not there"):
        run_steps([_write(tmp_path / "last", waits_for=tmp_path / "nowhere")], tmp_path / "logs")


def test_overrides_reach_the_trainings_and_a_malformed_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned: list[Step] = []
    monkeypatch.setattr("bundle.training.steps.run_steps", lambda steps, *_: planned.extend(steps))
    monkeypatch.setattr("bundle.reports.chain.write_chain_report", lambda _: "report")
    words = ["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path)]
    assert reproduce.main([*words, "--segmentation", "spatial_size=[256,256]", "normals=True"]) == 0
    train = next(step for step in planned if step.name.startswith("train segmentation"))
    assert train.words[-4:] == ("--spatial_size", "[256,256]", "--normals", "True")
    with pytest.raises(SystemExit):
        reproduce.main([*words, "--classification", "margin"])
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_of_the_chain_stops_its_steps(
    sent: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, told = tmp_path / "step.py", tmp_path / "told"
    script.write_text(
        f"import os, pathlib, time\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    step = Step("sleep", (), tmp_path / "result", (str(script),))
    monkeypatch.setattr(reproduce, "plan_chain", lambda *_, **__: [step])

    def stop() -> None:
        while not (told.is_file() and told.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), sent)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's `&`
    threading.Thread(target=stop, daemon=True).start()
    try:
        with pytest.raises(SystemExit) as end:
            sys.exit(reproduce.main(["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path)]))
        assert end.value.code == code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
    assert ("the same command goes on" in capsys.readouterr().err) == (sent == signal.SIGINT)


@pytest.mark.slow
def test_the_whole_chain_ends_in_a_report_and_a_second_call_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "phantom"
    make_phantom(data, counts={"benign": 40, "malignant": 36, "normal": 4}, size_range=((60, 80), (90, 120)))
    words = ["--dataset_dir", str(data), "--output_dir", str(tmp_path / "out"), "--max_epochs", "2", "--oracle"]
    words += ["--folds", "2", "--members", "2"]
    assert reproduce.main(words) == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "SYNTHETIC" in report
    assert "ORACLE" in report
    assert "93.23 %" in report
    assert report.count("What a score is made of") == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not a medical device" in page
    assert page.count("data:image/png;base64,") >= 8
    capsys.readouterr()
    assert reproduce.main(words) == 0
    assert capsys.readouterr().out.count("done before") == 8 + 26


@pytest.mark.parametrize("words", [["--paper", "--rows", "9"], ["--classifier_rows", "4"], ["--folds", "1"]])
def test_a_row_or_a_fold_that_there_is_not_starts_no_step(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        reproduce.main([*words, "--output_dir", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert words[-1] in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
