# SPDX-License-Identifier: Apache-2.0
"""What each named option of scripts/predict.py costs in Dice and AUROC, and brings in speed, beside the defaults."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bundle.data.cases import CASES, Case, read_cases
from bundle.data.datalists import DATALIST
from bundle.data.roots import Dataset, dataset_folder, find_roots
from bundle.errors import UserError
from bundle.evaluation.comparison import compare_tables
from bundle.files import read_json, to_csv, write_atomically
from bundle.networks.autocast import has_fast_bfloat16
from bundle.networks.weights import read_card
from bundle.prediction.backends import AUTO
from bundle.prediction.batch import Batch
from bundle.prediction.inputs import list_inputs
from bundle.prediction.predictor import Predictor
from bundle.prediction.scoring import predict_cases
from bundle.provenance import describe_run

SCORES = ("dice", "auroc")
TIMED = 24
"""Images of a round of the timing."""
_SAME = ("dataset_sha256", "split", "seed")  # of a datalist; a card calls the last one split_seed


@dataclass(frozen=True)
class Choice:
    """A choice of options.

    Args:
        name: as on the command line of scripts/predict.py.
        small: the segmenter is the small one.
        options: of the `Predictor`.
    """

    name: str
    small: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


DEFAULT = Choice("default")
CHOICES = (
    DEFAULT,
    Choice("--no-flip", options={"flip": False}),
    Choice("--precision bfloat16", options={"amp": True}),
    Choice("--precision int8", options={"int8": True}),
    Choice("--precision int8 --no-flip", options={"int8": True, "flip": False}),
    Choice("--small", small=True),
    Choice("--small --precision int8 --no-flip", small=True, options={"int8": True, "flip": False}),
)


def measure_prices(
    segmenter: str | os.PathLike[str],
    classifier: str | os.PathLike[str],
    prepared: str | os.PathLike[str],
    dataset: Dataset,
    output: str | os.PathLike[str],
    *,
    small: str | os.PathLike[str] | None = None,
    images: int | None = None,
    rounds: int = 7,
    choices: Sequence[Choice] = (),
) -> dict[str, Any]:
    """Score and time every choice on the test part of the weights' own split, on the CPU by the fastest backend.

    Args:
        segmenter, classifier: weights files, trained on one split.
        prepared: folder of that split, of scripts/prepare_data.py.
        dataset: what was prepared.
        output: gets each choice's predictions and scores; what is there of an earlier run is taken.
        small: weights file of the small segmenter, of the same split; without it choices of it are left out.
        images: how many to score, evenly chosen; all by default.
        rounds: of the timing that count, each of `TIMED` of them from file to finding, all choices in turns.
        choices: the first is what the others are compared with; `CHOICES` by default.

    Returns:
        ready for JSON: `settings`; `runs`, per choice `name`, `computed_by`, `images_per_second`, `ratio` (to the
        first), `dice` of the lesions and `auroc` (estimates), and of all but the first `differences`: of each score to
        the first with its interval, by group, see `compare_tables`; `provenance`.

    Raises:
        UserError: a file is missing or cannot be used, or weights are of another split: they may have seen the images.
    """
    weights = {"segmenter": Path(segmenter), "classifier": Path(classifier)}
    weights |= {"small": Path(small)} if small else {}
    cases, described = _unseen(weights, Path(prepared), images)
    choices = choices or CHOICES
    chosen = [choice for choice in choices if small or not choice.small]
    left_out = [choice.name for choice in choices if choice not in chosen]
    if not has_fast_bfloat16("cpu"):
        left_out += [choice.name for choice in chosen if choice.options.get("amp")]
        chosen = [choice for choice in chosen if not choice.options.get("amp")]
    predictors = {choice.name: _open(choice, weights) for choice in chosen}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = _join(dataset, Path(name))
        tables = {name: _score(found, cases, folder, Path(output) / _plain(name)) for name, found in predictors.items()}
        files = [folder / case.image for case in cases[:: max(1, len(cases) // TIMED)][:TIMED]]
        speeds = _time({name: _pipeline(predictor, files) for name, predictor in predictors.items()}, rounds)
    first = chosen[0].name
    runs = [_describe(name, predictors[name], tables, first, speeds) for name in predictors]
    return {
        "settings": {
            **described,
            **{"left_out": left_out, "images_timed": len(files), "threads": torch.get_num_threads()},
            "weights": {name: read_card(file).get("sha256") for name, file in weights.items()},
        },
        "runs": [run if run["name"] != first else {**run, "differences": {}} for run in runs],
        "rounds": rounds,
        "provenance": describe_run(),
    }


def prices_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_prices`."""
    settings = result["settings"]
    lines = [f"{'':<40}{'images/s':>9}{'×':>6}{'Dice':>8}{'difference':>28}{'AUROC':>8}{'difference':>28}"]
    for run in result["runs"]:
        told = [_tell(run["differences"].get(score)) for score in SCORES]
        lines.append(
            f"{run['name']:<40}{run['images_per_second']:>9.1f}{run['ratio']:>6.2f}{run['dice']:>8.4f}{told[0]:>28}"
            f"{run['auroc']:>8.4f}{told[1]:>28}"
        )
    lines += [f"left out: {name}" for name in settings["left_out"]]
    return [*lines, f"{settings['images']} images in {settings['groups']} groups, {settings['threads']} threads"]


def _tell(difference: Mapping[str, float | None] | None) -> str:
    if difference is None:
        return ""
    known = ["–" if difference[key] is None else f"{difference[key]:+.4f}" for key in ("estimate", "low", "high")]
    return f"{known[0]} [{known[1]}, {known[2]}]"


def _plain(name: str) -> str:
    return name.replace("--", "").replace(" ", "_")


def _unseen(weights: Mapping[str, Path], prepared: Path, images: int | None) -> tuple[list[Case], dict[str, Any]]:
    """The test part of a split, after a look at the cards: every network was trained on the same one."""
    datalist = read_json(prepared / DATALIST, "give the folder that scripts/prepare_data.py made of that split")
    for name, file in weights.items():
        card = read_card(file)
        if not file.is_file() or not card:
            raise UserError(f"{file}: no weights with their card; give the {name}'s")
        there = [card.get("dataset_sha256"), card.get("split"), card.get("split_seed")]
        if there != [datalist.get(key) for key in _SAME]:
            raise UserError(
                f"{file}: the {name} was trained on split '{card.get('split')}', seed {card.get('split_seed')}, of "
                f"{card.get('name')}, not on that of {prepared}: it may have seen these images"
            )
    wanted = {record["image"] for record in datalist["test"]}
    cases = [case for case in read_cases(prepared / CASES).cases if case.image in wanted]
    cases = cases[:: max(1, len(cases) // images)][:images] if images else cases
    return cases, {
        **{"data": datalist["name"], "split": datalist["split"], "split_seed": datalist["seed"], "part": "test"},
        **{"images": len(cases), "groups": len({case.group for case in cases})},
    }


def _open(choice: Choice, weights: Mapping[str, Path]) -> Predictor:
    segmenter = weights["small" if choice.small else "segmenter"]
    return Predictor(segmenter, weights["classifier"], "cpu", backend=AUTO, **choice.options)


def _join(dataset: Dataset, folder: Path) -> Path:
    """A folder that the paths of one dataset, or of several, start from."""
    roots = find_roots(dataset)
    if "" in roots.datasets:
        return dataset_folder(roots.datasets[""]).resolve()
    for name, path in roots.datasets.items():
        (folder / name).symlink_to(dataset_folder(path).resolve(), target_is_directory=True)
    return folder


def _score(predictor: Predictor, cases: Sequence[Case], folder: Path, output: Path) -> Path:
    rows, failed, _ = predict_cases(predictor, cases, folder, output, {case.image: case.group for case in cases})
    if failed:
        raise UserError(f"{failed[0]['path']}: {failed[0]['reason']}; every choice must score every image")
    table = output / "per_image.csv"
    write_atomically(table, to_csv(rows))
    return table


def _pipeline(predictor: Predictor, files: Sequence[Path]) -> Callable[[], int]:
    inputs, _ = list_inputs(files, (), None)

    def run() -> int:
        for outcome in Batch(predictor, "").run(inputs):
            if outcome.error is not None:
                raise outcome.error
        return len(inputs)

    return run


def _time(runs: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Images per second of each round, by name; a first round does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            count = run()
            speeds[name].append(count / (time.perf_counter() - start))
    return {name: found[1:] for name, found in speeds.items()}


def _describe(
    name: str, predictor: Predictor, tables: Mapping[str, Path], first: str, speeds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    scores = compare_tables(tables[first], tables[name])["scores"]
    return {
        **{"name": name, "computed_by": predictor.computed_by},
        "images_per_second": statistics.median(speeds[name]),
        "ratio": statistics.median(one / other for one, other in zip(speeds[name], speeds[first], strict=True)),
        **{score: scores[score]["second"] for score in SCORES},
        "differences": {score: scores[score]["difference"] for score in SCORES},
    }
