# SPDX-License-Identifier: Apache-2.0
"""The pages that are generated from the recorded results (docs/results/*.json)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bundle.evaluation.segmentation import MISSED_BELOW
from bundle.files import read_json
from bundle.networks.weights import CLASSIFIER, SEGMENTER, read_card, recorded_settings
from bundle.reports import markdown
from bundle.reports.aims import tabulate_weight_aims
from bundle.reports.chain import PAPER_CLASSIFICATION, PAPER_SEGMENTATION
from bundle.reports.evidence import plan_evidence_figures, read_evidence, summarise_factorial
from bundle.reports.metadata import render_metadata
from bundle.reports.peers import FIGURE as PEERS_FIGURE
from bundle.reports.peers import draw_peers, join_peers
from bundle.reports.planned_figure import PlannedFigure
from bundle.reports.records import Records, read_records

PAGES = {
    "results.md": "results.md.j2",
    "runs.md": "runs.md.j2",
    "README.md": "model_card.md.j2",
    "evidence.md": "evidence.md.j2",
}
README_BLOCK = ("<!-- results -->", "<!-- /results -->")
FILTERS = ("cell", "code", "dataset", "network", "number", "size", "span", "spread", "widths")
_TEMPLATES = Path(__file__).parent / "templates"

PathLike = str | os.PathLike[str]
Run = dict[str, Any]


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
    records = read_records(results_dir)
    _tell_shipped(records, root)
    evidence = read_evidence(results_dir)
    # No autoescape: the pages are Markdown, and texts from outside pass through `cell` and `code`.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(markdown, name) for name in FILTERS}
    segmenter = _find(records.segmentations, SEGMENTER)
    classifier = _find(records.classifications, CLASSIFIER)
    weights, train = root / "models" / SEGMENTER, read_json(root / "configs" / "train.json")
    cards = [read_card(root / "models" / name) for name in (SEGMENTER, CLASSIFIER)]
    values = {
        "records": records,
        "results": records.segmentations,
        "classifications": records.classifications,
        "segmenter": segmenter,
        "classifier": classifier,
        "recipes": group_segmenters(records.segmentations),
        "series": group_classifiers(records.classifications),
        "joined": join_peers(records.benchmarks.get("peers"), records.peers),
        "paper_segmentation": PAPER_SEGMENTATION,
        "paper_classification": PAPER_CLASSIFICATION,
        "evidence": evidence,
        **summarise_factorial(evidence["factorial"]),
        "weights_bytes": sum(
            file.stat().st_size for file in (weights, weights.with_name(CLASSIFIER)) if file.is_file()
        ),
        "missed_below": MISSED_BELOW,
        "aims": tabulate_weight_aims(Path(results_dir)),
        "strata": name_strata,
        "elsewhere": [item for card in cards for item in card.get("tested_elsewhere", {}).items()],
        "left_out": cards[1].get("left_out"),
        "presence_limit": cards[0].get("presence_points", {}),
        "metadata": read_json(root / "configs" / "metadata.json"),
        "train": {**train, **recorded_settings(weights, train["shipped"]["defaults"])},
    }
    pages = {
        page: re.sub(r"\n{3,}", "\n\n", environment.get_template(template).render(values))
        for page, template in PAGES.items()
    }
    readme = root / "README.md"
    if readme.is_file():
        block = environment.get_template("readme_results.md.j2").render(values).strip()
        pages["../README.md"] = markdown.fill_block(readme.read_text(encoding="utf-8"), README_BLOCK, block)
    pages["../configs/metadata.json"] = render_metadata(root, segmenter, classifier)
    return pages


def name_strata(result: Run) -> list[tuple[str, Any]]:
    """The scores of a record by dataset, scanner, BI-RADS category and, of a classifier, size, each with its name."""
    parts = [(name, part.get("lesions", part)) for name, part in result.get("datasets", {}).items()]
    parts += [(f"scanner {name}", part) for name, part in result.get("device", {}).items()]
    parts += [(f"BI-RADS {name}", part) for name, part in result.get("birads", {}).items()]
    if "auroc" in result:
        parts += [(f"lesion {name}", part) for name, part in result.get("sizes", {}).items()]
    return [(name, part) for name, part in parts if part["cases"]]


def plan_figures(results_dir: PathLike) -> dict[str, PlannedFigure]:
    """The figures of the pages, by the names of their files."""
    records = read_records(results_dir)
    planned = plan_evidence_figures(read_evidence(results_dir))
    joined = join_peers(records.benchmarks.get("peers"), records.peers)
    if any(run for _, run in joined):
        planned[PEERS_FIGURE] = PlannedFigure(joined, lambda: draw_peers(joined))
    return planned


def group_segmenters(results: Sequence[Run]) -> list[dict[str, Any]]:
    """Join the runs of one recipe: those whose titles differ in the number of the split or of the fold alone.

    Returns:
        Entries with ``title`` and ``runs``, in the order of their first runs.
    """
    collected: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for result in results:
        title = re.sub(r",?( of)? split \d+", "", result["title"])
        key = re.sub(r"\bfold \d+ of", "folds of", title)
        collected[result["recipe"], result["row"], key, result["batch_norm"]].append({**result, "recipe_title": title})
    entries = []
    for (_, _, key, _), runs in collected.items():
        titles = {run["recipe_title"] for run in runs}
        name = runs[0]["title"] if len(runs) == 1 else titles.pop() if len(titles) == 1 else key
        entries.append({"title": name, "runs": runs})
    return entries


def group_classifiers(classifications: Sequence[Run]) -> list[dict[str, Any]]:
    """Join the classifiers that differ in nothing but seed, split and segmenter: not in dataset or architecture.

    Returns:
        Entries with ``title``, ``masks`` and ``runs``, in the order of their first runs; a single run keeps its title.
    """
    collected: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for result in classifications:
        weights = result["weights"]
        cross_fitted = f", cross-fitted in {weights['folds']} folds" if weights.get("folds") else ""
        row = f", row {result['row']}" if result["row"] else ""
        pooled = weights.get("members") is not None
        kind = (result["masks"], pooled, weights.get("architecture"), weights.get("name"))
        collected[f"{result['recipe']}{row}{cross_fitted}", kind].append(result)
    return [
        {"title": runs[0]["title"] if len(runs) == 1 else title, "masks": masks, "runs": runs}
        for (title, (masks, *_)), runs in collected.items()
    ]


def _tell_shipped(records: Records, root: Path) -> None:
    """Add to each run the file of ``models/`` that it is of, and whether it normalises over the batch.

    A run is of a file that holds its weights; or, where weights were trained on all images so that none is left to test
    them on, of the file whose card names it as ``cross_validated_by``: networks of the same recipe, each tested on
    images that it never saw (``shipped_recipe``), perhaps at another size than the file's own (``shipped_size``).
    """
    shipped, recipes, sizes = {}, {}, {}
    for weights in sorted(root.glob("models/*.pt")):
        card = read_card(weights)
        shipped[card.get("sha256")] = recipes[card.get("cross_validated_by")] = weights.name
        sizes[weights.name] = card.get("spatial_size")
    for result in (*records.segmentations, *records.peers, *records.classifications):
        of_recipe = recipes.get(result["name"])
        result["shipped"] = shipped.get(result["weights"].get("sha256", "")) or of_recipe
        result["shipped_recipe"] = result["shipped"] is not None and result["shipped"] == of_recipe
        result["shipped_size"] = sizes.get(of_recipe or "")
        result["batch_norm"] = False
    for result in records.segmentations:
        result["batch_norm"] = result["recipe"] == "ours" and _normalises_over_batch(result["weights"])


def _normalises_over_batch(card: Mapping[str, Any]) -> bool:
    """Of a U-Net; before there was a choice, cards said nothing of it."""
    return card.get("architecture", "UNet") == "UNet" and not card.get("instance_norm")


def _find(results: Sequence[Run], shipped: str) -> Run | None:
    return next((result for result in results if result["shipped"] == shipped), None)
