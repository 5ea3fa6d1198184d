# SPDX-License-Identifier: Apache-2.0
"""The classifier's datalist: images that the segmenter never trained on, with the masks that it predicted for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bundle.data.cases import Case
from bundle.data.prepare import load_datalist
from bundle.data.splits import PARTS, check_no_group_crosses, parse_ratio, split_cases
from bundle.errors import InputError, UserError
from bundle.files import read_json, write_json
from bundle.weights import require_card

DATALIST = "datalist_classifier.json"
TARGETS = {"benign": 0.0, "malignant": 1.0}
MASK_SOURCES = ("predicted", "oracle")


def prepare_classifier(
    segmentation_datalist: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str],
    maps_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    split: str = "60:10:30",
    seed: int = 0,
    masks: str = "predicted",
) -> dict[str, Any]:
    """Split the segmenter's test part for the classifier and write ``datalist_classifier.json``.

    Args:
        segmentation_datalist: whose test part is split again; groups stay whole.
        dataset_dir: the dataset's folder.
        maps_dir: folder of the predicted probability maps, 8-bit PNG named like the images.
        output_dir: gets the datalist.
        weights: the segmenter that made the maps; its card must name the same dataset, split and seed, so that no
            image is used that it trained on. None only for ``oracle``.
        split: training : validation : test of the classifier.
        seed: of the split.
        masks: "predicted", or "oracle" for ground truth, which only runs named so may use.

    Returns:
        the datalist, with absolute paths.

    Raises:
        UserError: a map is missing, the maps come from another split, masks is unknown, or a class is missing in the
            training or the validation part.
    """
    if masks not in MASK_SOURCES:
        raise UserError(f"masks '{masks}': give one of {', '.join(MASK_SOURCES)}")
    segmentation = load_datalist(segmentation_datalist, dataset_dir)
    card = _check_origin(segmentation, weights) if masks == "predicted" else {}
    folder, maps = Path(dataset_dir).resolve(), Path(maps_dir).resolve()
    cases = [_as_case(record, folder) for record in segmentation["test"]]
    by_image = {record["image"]: record for record in segmentation["test"]}
    datalist: dict[str, Any] = {
        **{key: segmentation[key] for key in ("name", "synthetic", "source", "dataset_sha256")},
        "description": "Benign or malignant; images that the segmenter never trained on.",
        "labels": {"0": "benign", "1": "malignant"},
        "masks": masks,
        "segmenter_sha256": card.get("sha256"),
        "segmentation_split": segmentation["split"],
        "segmentation_seed": segmentation["seed"],
        "split": split,
        "seed": seed,
    }
    for part, members in split_cases(cases, parse_ratio(split), seed).items():
        datalist[part] = [_record(by_image[str(folder / case.image)], folder, maps, masks) for case in members]
    _check_classes(datalist, dataset_dir)
    check_no_group_crosses(datalist)
    write_json(Path(output_dir) / DATALIST, datalist)
    return load_classifier_datalist(Path(output_dir) / DATALIST, dataset_dir, maps_dir)


def load_classifier_datalist(
    datalist: str | os.PathLike[str], dataset_dir: str | os.PathLike[str], maps_dir: str | os.PathLike[str]
) -> dict[str, Any]:
    """Read a classifier's datalist with absolute paths in its records.

    Raises:
        UserError: it is not readable, a group crosses its parts, or a file is missing.
    """
    mend = "make it anew: delete it and run the training again"
    content = read_json(datalist, mend)
    missing = [key for key in ("masks", "split", "seed", "segmenter_sha256", *PARTS) if key not in content]
    if missing:
        raise InputError(datalist, f"is no classifier datalist (it lacks {', '.join(missing)})", mend)
    check_no_group_crosses(content)
    folder, maps = Path(dataset_dir).resolve(), Path(maps_dir).resolve()
    for part in PARTS:
        for record in content[part]:
            record["image"] = str(folder / record["image"])
            if not os.path.isfile(record["image"]):
                mend = "give the dataset's own folder"
                raise InputError(record["image"], "is named in the datalist but missing", mend)
            if content["masks"] == "oracle":
                record["probability"] = [str(folder / path) for path in record["probability"]]
            else:
                record["probability"] = str(maps / record["probability"])
                if not os.path.isfile(record["probability"]):
                    raise InputError(record["probability"], "is named in the datalist but missing", "segment again")
    return content


def ensure_classifier_prepared(
    dataset_dir: str | os.PathLike[str],
    segmentation_datalist: str | os.PathLike[str],
    maps_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    split: str,
    seed: int,
    masks: str,
) -> dict[str, Any]:
    """The classifier's datalist, made now unless it was before; what the classifier's configs call.

    Raises:
        UserError: the folder holds one of another split, seed, source of masks or segmenter; ground truth is asked
            for in a folder whose name does not say ``oracle``; or as `prepare_classifier`.
    """
    if masks == "oracle" and "oracle" not in Path(output_dir).resolve().name:
        raise UserError(
            f"{output_dir}: ground-truth masks reach the classifier only in a run that is named so; "
            "give an --output_dir whose name contains 'oracle'"
        )
    path = Path(output_dir) / DATALIST
    if not path.exists():
        return prepare_classifier(
            *(segmentation_datalist, dataset_dir, maps_dir, output_dir),
            weights=weights,
            split=split,
            seed=seed,
            masks=masks,
        )
    # The origin of the maps was checked when the datalist was made; it holds for this segmenter alone.
    segmenter = _require_segmenter(weights)["sha256"] if masks == "predicted" else None
    datalist = load_classifier_datalist(path, dataset_dir, maps_dir)
    for key, wanted in (("split", split), ("seed", seed), ("masks", masks), ("segmenter_sha256", segmenter)):
        if datalist[key] != wanted:
            raise InputError(path, f"was made with {key} {datalist[key]}, not {wanted}", "name another --output_dir")
    return datalist


def _check_origin(segmentation: dict[str, Any], weights: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Refuse maps of a segmenter that may have trained on the images it segmented."""
    card = _require_segmenter(weights)
    for ours, theirs in (("dataset_sha256", "dataset_sha256"), ("split", "split"), ("seed", "split_seed")):
        if card.get(theirs) != segmentation[ours]:
            raise UserError(
                f"{weights}: trained with {theirs} {card.get(theirs)}, but the datalist has {segmentation[ours]}; "
                "use the datalist of its own training, or it may have seen the images it segments"
            )
    return card


def _require_segmenter(weights: str | os.PathLike[str] | None) -> dict[str, Any]:
    if weights is None:
        raise UserError("predicted masks need the weights of the segmenter that made them; give --segmenter model.pt")
    return require_card(weights, ("sha256", "threshold"))


def _check_classes(datalist: dict[str, Any], dataset_dir: str | os.PathLike[str]) -> None:
    """Refuse a split that would only fail after the training, when the operating points are chosen."""
    for part in ("training", "validation"):
        for label in TARGETS:
            if not any(record["class"] == label for record in datalist[part]):
                raise UserError(f"{dataset_dir}: no {label} image is left for {part}; add cases or change --split")


def _as_case(record: dict[str, Any], folder: Path) -> Case:
    relative = Path(record["image"]).relative_to(folder).as_posix()
    return Case(image=relative, masks=(), label=record["class"], group=record["group"])


def _record(record: dict[str, Any], folder: Path, maps: Path, masks: str) -> dict[str, Any]:
    relative = Path(record["image"]).relative_to(folder)
    probability: str | list[str]
    if masks == "oracle":
        probability = [Path(path).relative_to(folder).as_posix() for path in record["label"]]
    else:
        from bundle.outputs.handler import output_name

        probability = output_name(folder / relative, folder).as_posix()
    return {
        "image": relative.as_posix(),
        "probability": probability,
        "label": TARGETS[record["class"]],
        "class": record["class"],
        "group": record["group"],
    }
