# SPDX-License-Identifier: Apache-2.0
"""The report of a whole chain: the paper's two tables with our rows beside its own, as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.files import read_json, write_atomically
from bundle.reports.html import embed_png, format_decimal, format_percent, render_html

QUOTED = "quoted from Macrì, Bruno, Dodaro 2024"
PAPER_SEGMENTATION = [
    *((1, "1e-4", "64–512", 93.23), (2, "4e-4", "32–128", 90.00)),
    *((3, "1e-5", "32–128", 92.54), (4, "1e-5", "64–512", 93.21)),
]
PAPER_CLASSIFICATION = [
    *((1, "1e-4", "16–64", 95, 88, 100), (2, "1e-5", "16–64", 98, 99, 97)),
    (3, "1e-5", "32–256", 96, 100, 93),
]
FIGURES = {
    "segmentation": (("curves.png", "training curves"), ("evaluation/examples.png", "examples")),
    "classification": (
        ("curves.png", "training curves"),
        ("evaluation/confusion.png", "confusion matrix"),
        ("evaluation/roc.png", "ROC curve"),
        ("evaluation/reliability.png", "reliability"),
    ),
}


def write_chain_report(output_dir: Path) -> Path:
    """Read every evaluated run below a folder and write ``report.md`` and ``report.html`` there.

    Args:
        output_dir: of the chain, with ``segmentation_*`` and ``classification_*`` run folders.

    Returns:
        the HTML file.
    """
    runs = {
        kind: {
            file.parents[1].name.removeprefix(f"{kind}_"): read_json(file)
            for file in sorted(output_dir.glob(f"{kind}_*/evaluation/metrics.json"))
        }
        for kind in FIGURES
    }
    tables = [_segmentation_table(runs["segmentation"]), _classification_table(runs["classification"])]
    for file in sorted(output_dir.glob("leaks_*/leaks.json")):
        tables.append(_leaks_table(file.parent.name.removeprefix("leaks_"), read_json(file)))
    everything = [(f"{kind} {name}", metrics) for kind in runs for name, metrics in runs[kind].items()]
    synthetic = any(metrics["synthetic"] for _, metrics in everything)
    figures = [
        (f"{kind} {name}: {title}", embed_png(output_dir / f"{kind}_{name}" / file))
        for kind in runs
        for name in runs[kind]
        for file, title in FIGURES[kind]
        if (output_dir / f"{kind}_{name}" / file).is_file()
    ]
    page = render_html(
        "chain.html",
        synthetic=synthetic,
        tables=tables,
        figures=figures,
        runs=[{"name": name, "source": _source(metrics)} for name, metrics in everything],
    )
    write_atomically(output_dir / "report.html", page)
    write_atomically(output_dir / "report.md", _markdown(tables, synthetic))
    return output_dir / "report.html"


def _segmentation_table(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        [
            *(name, "–".join(map(str, (metrics["weights"]["filters"][0], metrics["weights"]["filters"][-1])))),
            format_percent(metrics["lesions"]["pixel_accuracy"]),
            format_percent(metrics["lesions"]["background_accuracy"]["estimate"]),
            *(format_decimal(metrics["lesions"][score]) for score in ("dice", "iou")),
            format_percent(metrics["lesions"]["missed"]),
        ]
        for name, metrics in runs.items()
    ]
    rows += [
        [f"row {row}, {QUOTED}", f"{filters}, lr {rate}", f"{accuracy:.2f} %", "–", "–", "–", "–"]
        for row, rate, filters, accuracy in PAPER_SEGMENTATION
    ]
    return {
        "title": "Table 1: segmentation",
        "head": ["run", "filters", "pixel accuracy", "… of predicting no lesion", "Dice", "IoU", "missed lesions"],
        "rows": rows,
        "note": "In brackets: 95 % intervals, drawn by group. Pixel accuracy means little beside the one of predicting "
        "no lesion at all.",
    }


def _classification_table(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for name, metrics in runs.items():
        default = metrics["operating_points"]["default"]
        rows.append(
            [
                f"{name}{' (ORACLE: ground-truth masks)' if metrics['masks'] == 'oracle' else ''}",
                format_percent(default["accuracy"]),
                format_percent(metrics["majority_accuracy"]["estimate"]),
                *(format_percent(default[f"precision_{label}"]) for label in ("benign", "malignant")),
                *(format_percent(default[score]) for score in ("sensitivity", "specificity")),
                *(format_decimal(metrics[score]) for score in ("auroc", "ece")),
            ]
        )
    rows += [
        [f"row {row}, {QUOTED}", f"{accuracy} %", "–", f"{benign} %", f"{malignant} %", "–", "–", "–", "–"]
        for row, _, _, accuracy, benign, malignant in PAPER_CLASSIFICATION
    ]
    return {
        "title": "Table 2: classification",
        "head": [
            *("run", "accuracy", "… of the larger class alone", "precision benign", "precision malignant"),
            *("sensitivity", "specificity", "AUROC", "ECE"),
        ],
        "rows": rows,
        "note": "At probability 0.5, calibrated on validation. Rows named ORACLE show what ground-truth outlines give "
        "away; they are no result.",
    }


def _leaks_table(name: str, leaks: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        ["predicting no lesion at all", "–", "–", f"{format_percent(leaks['background']['pixel_accuracy'])} of pixels"]
    ]
    for source, answers in leaks["silhouettes"].items():
        for what, scores in answers.items():
            rows.append(
                [
                    *(f"{what}, {source} masks", "–", format_decimal(scores["auroc"])),
                    format_percent(scores["accuracy"]),
                ]
            )
    for what, scores in leaks["protocols"].items():
        twins = format_percent(scores["test_images_with_a_twin_in_training"])
        rows.append(
            [f"random forest, {what}", twins, format_decimal(scores["auroc"]), format_percent(scores["accuracy"])]
        )
    return {
        "title": f"What a score is made of: {name}",
        "head": ["what is asked", "test images with a twin in training", "AUROC", "accuracy"],
        "rows": rows,
        "note": "No network is asked here: outlines and measured features alone, and one classifier under four ways to "
        f"split ({leaks['protocol_masks']} masks). The larger class alone has an accuracy of "
        f"{format_percent(leaks['majority_accuracy'])}.",
    }


def _source(metrics: Mapping[str, Any]) -> list[str]:
    provenance = metrics["provenance"]
    return [
        str(provenance.get(key) or "not recorded")[:16] for key in ("commit", "dataset_sha256", "weights_sha256")
    ] + [str(provenance.get("device"))]


def _markdown(tables: Sequence[Mapping[str, Any]], synthetic: bool) -> str:
    lines = ["# Breast ultrasound: segmentation and classification", ""]
    lines += ["**SYNTHETIC data: the numbers say nothing about patients.**", ""] if synthetic else []
    lines += ["Research software. Not a medical device. Not for clinical use.", ""]
    for table in tables:
        lines += [f"## {table['title']}", "", _row(table["head"]), _row(["---"] * len(table["head"]))]
        lines += [*(_row(row) for row in table["rows"]), "", table["note"], ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
