# SPDX-License-Identifier: Apache-2.0
"""Recorded results (docs/results/*.json) and the pages that are generated from them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bundle.errors import InputError, UserError
from bundle.evaluation.segmentation import MISSED_BELOW
from bundle.files import read_json, write_json
from bundle.networks.weights import CLASSIFIER, SEGMENTER
from bundle.reports.evidence import kind_of, plan_evidence_figures, read_evidence, summarise_factorial
from bundle.reports.metadata import render_metadata
from bundle.reports.peers import FIGURE as PEERS_FIGURE
from bundle.reports.peers import RECIPE as PEER
from bundle.reports.peers import draw_peers, join_peers
from bundle.reports.planned_figure import PlannedFigure

PAGES = {"results.md": "results.md.j2", "README.md": "model_card.md.j2", "evidence.md": "evidence.md.j2"}
BENCHMARK, DUPLICATES, FUZZ = "benchmark_training", "benchmark_duplicates", "fuzz"
INFERENCE, PEERS, ARCHIVE = "benchmark_inference", "benchmark_peers", "benchmark_archive"
README_BLOCK = ("<!-- results -->", "<!-- /results -->")
RECIPES = ("paper", "ours", PEER)
COMPARISON = "compare_"  # begins the names of recorded comparisons
SCORES = ("dice", "iou", "hd95", "pixel_accuracy", "background_accuracy", "missed")
_METRICS = ("synthetic", "threshold", "intervals", "lesions", "classes", "normals", "weights", "provenance")
CLASSIFICATION = "classification"  # the "task" that a classifier's metrics.json names; a segmenter's names none
_CLASS_METRICS = ("synthetic", "masks", "intervals", "auroc", "ece", "operating_points", "weights", "provenance")
_SPEEDS = ("settings", "rounds", "bare_images_per_second", "loop_images_per_second", "ratio", "provenance")
_MEND = "record it again with scripts/record_result.py"
_TEMPLATES = Path(__file__).parent / "templates"

PathLike = str | os.PathLike[str]


def record_result(
    metrics_file: PathLike,
    results_dir: PathLike,
    name: str,
    *,
    title: str,
    recipe: str,
    row: int | None = None,
    note: str = "",
    allow_synthetic: bool = False,
) -> Path:
    """Copy the ``metrics.json`` of an evaluation to the recorded results, with what the pages say of it added.

    Args:
        metrics_file: as ``bundle.reports.SegmentationEvaluation`` wrote it; kept whole.
        results_dir: where results are recorded; a former one of the same name is replaced.
        name: of the file, without suffix: lower-case letters, digits and underscores.
        title: of the run on the pages.
        recipe: ``paper``, ``ours``, or ``peer`` for a network of the comparison with those of MONAI.
        row: of the paper's Table 1, where the run repeats one.
        note: a sentence for the run's section.
        allow_synthetic: also record a result on the synthetic phantom.

    Returns:
        the recorded file.

    Raises:
        UserError: the file is no such metrics, the name or the recipe is not allowed, or the data are synthetic.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name) or name.startswith("benchmark"):
        raise UserError(f"--name {name}: use lower-case letters, digits and underscores, such as busi_ours_seed0")
    if recipe not in RECIPES:
        raise UserError(f"--recipe {recipe}: choose one of {', '.join(RECIPES)}")
    mend = "give the metrics.json of an evaluation run"
    metrics = read_json(metrics_file, mend)
    _require(metrics_file, metrics, _CLASS_METRICS if _is_classification(metrics) else _METRICS, mend)
    if metrics["synthetic"] and not allow_synthetic:
        raise InputError(
            metrics_file, "its data are synthetic and say nothing about patients", "or add --allow-synthetic"
        )
    target = Path(results_dir) / f"{name}.json"
    write_json(target, {"title": title, "recipe": recipe, "row": row, "note": note, **metrics})
    return target


def record_comparison(
    file: PathLike, results_dir: PathLike, name: str, *, title: str, first: str, second: str, note: str = ""
) -> Path:
    """Copy what ``scripts/compare.py --output`` wrote to the recorded results.

    Args:
        file: the comparison.
        results_dir: where results are recorded; a former one of the same name is replaced.
        name: of the file, which begins with ``compare_``.
        title: what was changed between the two models.
        first, second: the models, in a few words.
        note: a sentence for the table.

    Returns:
        the recorded file.

    Raises:
        UserError: the file is no comparison, or the name is not allowed.
    """
    if not re.fullmatch(COMPARISON + r"[a-z0-9_]+", name):
        raise UserError(
            f"--name {name}: a comparison is named {COMPARISON}…, in lower-case letters, digits, underscores"
        )
    content = read_json(file, "give what scripts/compare.py --output wrote")
    _require(file, content, ("images", "scores", "provenance"), "give what scripts/compare.py --output wrote")
    target = Path(results_dir) / f"{name}.json"
    write_json(target, {"title": title, "first": first, "second": second, "note": note, **content})
    return target


def render_pages(results_dir: PathLike, root: PathLike) -> dict[str, str]:
    """Return the text of every generated page, by its path from the docs folder.

    Args:
        results_dir: recorded results; none at all makes pages that say so.
        root: of the bundle, whose ``configs/metadata.json``, ``configs/train.json`` and, if there,
            ``models/model.json`` are quoted.

    Raises:
        InputError: a file is no readable JSON or lacks what the pages show.
    """
    root = Path(root)
    shipped = {read_json(card).get("sha256"): card.with_suffix(".pt").name for card in root.glob("models/model*.json")}
    results, classifications, comparisons, benchmark = [], [], [], None
    for file in sorted(Path(results_dir).glob("*.json")):
        content = read_json(file, _MEND)
        if file.stem.startswith(COMPARISON):
            _require(file, content, ("title", "first", "second", "images", "scores"), _MEND)
            comparisons.append({**content, "name": file.stem})
            continue
        if kind_of(content) or file.stem in (DUPLICATES, INFERENCE, PEERS, ARCHIVE, FUZZ):
            continue
        if file.stem == BENCHMARK:
            _require(file, content, _SPEEDS, "run scripts/benchmark.py training again")
            benchmark = content
        elif _is_classification(content):
            _require(file, content, ("title", "recipe", "row", "note", *_CLASS_METRICS), _MEND)
            weights_file = shipped.get(content["weights"].get("sha256", ""))
            classifications.append({**content, "name": file.stem, "shipped": weights_file})
        else:
            _require(file, content, ("title", "recipe", "row", "note", *_METRICS), _MEND)
            _require(file, content["lesions"], SCORES, _MEND)
            weights_file = shipped.get(content["weights"].get("sha256", ""))
            batch_norm = content["recipe"] == "ours" and not content["weights"].get("instance_norm")
            results.append({**content, "name": file.stem, "shipped": weights_file, "batch_norm": batch_norm})
    # The paper's recipe first, by its rows, then ours: the order in which a reader compares.
    for listed in (results, classifications):
        listed.sort(key=lambda result: (RECIPES.index(result["recipe"]), result["row"] or 0, result["name"]))
    peers = _read_benchmark(results_dir, PEERS)
    compared = [result for result in results if result["recipe"] == PEER]
    # No autoescape: the pages are Markdown, and texts from outside pass through `cell` and `code`.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": _cell,
        "number": _number,
        "size": _size,
        "widths": _widths,
        "code": _code,
        "span": _span,
    }
    evidence = read_evidence(results_dir)
    values = {
        "evidence": evidence,
        **summarise_factorial(evidence["factorial"]),
        "results": [result for result in results if result["recipe"] != PEER],
        "compared": compared,
        "comparisons": comparisons,
        "splits": _summarise_splits(results),
        "classifications": classifications,
        "series": _summarise_seeds(classifications),
        "benchmark": benchmark,
        "growth": _read_benchmark(results_dir, DUPLICATES),
        "inference": _read_benchmark(results_dir, INFERENCE),
        "peers": peers,
        "joined": join_peers(peers, compared),
        "archive": _read_benchmark(results_dir, ARCHIVE),
        "shipped": SEGMENTER in shipped.values(),
        "weights_bytes": (root / "models" / SEGMENTER).stat().st_size if SEGMENTER in shipped.values() else 0,
        "missed_below": MISSED_BELOW,
        "metadata": read_json(root / "configs" / "metadata.json"),
        "train": read_json(root / "configs" / "train.json"),
    }
    pages = {page: environment.get_template(template).render(values) for page, template in PAGES.items()}
    readme = root / "README.md"
    if readme.is_file():
        block = environment.get_template("readme_results.md.j2").render(values).strip()
        before, _, rest = readme.read_text(encoding="utf-8").partition(README_BLOCK[0])
        _, _, after = rest.partition(README_BLOCK[1])
        pages["../README.md"] = f"{before}{README_BLOCK[0]}\n{block}\n{README_BLOCK[1]}{after}"
    scores = _find(results, SEGMENTER), _find(classifications, CLASSIFIER)
    pages["../configs/metadata.json"] = render_metadata(root, *scores)
    return pages


def plan_figures(results_dir: PathLike) -> dict[str, PlannedFigure]:
    """The figures of the pages, by the names of their files."""
    planned = plan_evidence_figures(read_evidence(results_dir))
    files = (read_json(file, _MEND) for file in sorted(Path(results_dir).glob("*.json")))
    joined = join_peers(_read_benchmark(results_dir, PEERS), [file for file in files if file.get("recipe") == PEER])
    if any(run for _, run in joined):
        planned[PEERS_FIGURE] = PlannedFigure(joined, lambda: draw_peers(joined))
    return planned


def _read_benchmark(results_dir: PathLike, name: str) -> dict[str, Any] | None:
    """Read a record of scripts/benchmark.py; None where there is none yet."""
    file = Path(results_dir) / f"{name}.json"
    if not file.is_file():
        return None
    mend = f"run scripts/benchmark.py {name.removeprefix('benchmark_')} again"
    content = read_json(file, mend)
    _require(file, content, ("runs", "provenance"), mend)
    return content


def _summarise_splits(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Collect the scores of segmenters whose titles differ in the number of the split alone; single runs are left out.

    A score that one of the runs lacks is an empty list.
    """
    collected: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        title = re.sub(r",?( of)? split \d+", "", result["title"])
        collected[title + (" (batch norm)" if result["batch_norm"] else "")].append(result)
    summaries: list[dict[str, Any]] = []
    for title, runs in collected.items():
        if len(runs) > 1:
            summaries.append({"title": title, "runs": len(runs)})
            for name in ("dice", "hd95_at_256", "pixel_accuracy"):
                found = [run["lesions"][name]["estimate"] for run in runs if name in run["lesions"]]
                summaries[-1][name] = found if len(found) == len(runs) else []
    return summaries


def _summarise_seeds(classifications: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Collect AUROC and accuracy of runs that differ in nothing but seed and split; runs of one seed are left out."""
    collected: defaultdict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for result in classifications:
        weights = result["weights"]
        cross_fitted = f", cross-fitted in {weights['folds']} folds" if weights.get("folds") else ""
        row = f", row {result['row']}" if result["row"] else ""
        collected[f"{result['recipe']}{row}{cross_fitted}", result["masks"]].append(result)
    return [
        {
            "name": name,
            "masks": masks,
            "seeds": len(results),
            "auroc": [result["auroc"]["estimate"] for result in results],
            "accuracy": [result["operating_points"]["default"]["accuracy"]["estimate"] for result in results],
        }
        for (name, masks), results in collected.items()
        if len(results) > 1
    ]


def _find(results: Sequence[dict[str, Any]], shipped: str) -> dict[str, Any] | None:
    return next((result for result in results if result["shipped"] == shipped), None)


def _is_classification(metrics: Mapping[str, Any]) -> bool:
    return metrics.get("task") == CLASSIFICATION


def _require(file: PathLike, content: Mapping[str, Any], keys: tuple[str, ...], mend: str) -> None:
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(file, f"lacks {', '.join(missing)}", mend)


def _number(value: Mapping[str, float | None] | float | None, digits: int = 3, scale: float = 1, unit: str = "") -> str:
    """Return "estimate [low, high]" of an interval, or one number; "–" where it is not defined."""
    if value is None:
        return "–"
    if not isinstance(value, Mapping):
        return f"{value * scale:.{digits}f}{unit}"
    estimate, low, high = value["estimate"], value["low"], value["high"]
    text = _number(estimate, digits, scale, unit)
    if estimate is None or low is None or high is None:
        return text
    return f"{text} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def _span(values: Sequence[float], digits: int = 3, scale: float = 1) -> str:
    """Return "mean (lowest–highest)"."""
    low, mean, high = (f"{value * scale:.{digits}f}" for value in (min(values), sum(values) / len(values), max(values)))
    return f"{mean} ({low}–{high})"


def _cell(value: Any) -> str:
    """Return text as one line that neither ends a table cell nor opens an HTML tag."""
    if value is None or value == "":
        return "not recorded"
    return " ".join(str(value).split()).replace("|", r"\|").replace("<", "&lt;")


def _code(value: Any) -> str:
    """Return text as a code span of one line."""
    return f"`{' '.join(str(value).replace('`', '').split())}`" if value else "not recorded"


def _size(value: list[int] | None) -> str:
    return "×".join(str(length) for length in value) if value else "not recorded"


def _widths(value: list[int] | None) -> str:
    return "-".join(str(width) for width in value) if value else "not recorded"
