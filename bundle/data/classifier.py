# SPDX-License-Identifier: Apache-2.0
"""The classifier's datalist: images that the segmenter never trained on, with the masks that it predicted for them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data.ancestry import unseen
from bundle.data.cases import CASES, DIGITS, Case, read_cases
from bundle.data.changes import require_current
from bundle.data.datalists import DATALIST as SEGMENTATION_DATALIST
from bundle.data.datalists import check_no_group_crosses, load_datalist, split_checksum
from bundle.data.folder import read_presence
from bundle.data.names import MAPS_RECORD, output_name
from bundle.data.roots import Dataset, Roots, find_roots
from bundle.data.split_names import is_by_image
from bundle.data.splits import PARTS, split_by_name
from bundle.errors import InputError, UserError
from bundle.files import read_json, write_json
from bundle.networks.weights import read_card, require_card
from bundle.readers import split_frame

DATALIST = "datalist_classifier.json"
TARGETS = {"benign": 0.0, "malignant": 1.0}
MASK_SOURCES = ("predicted", "oracle")


@dataclass(frozen=True)
class Source:
    """One segmenter and what it has to do with a dataset.

    Args:
        datalist: of the segmenter's training; its test part is what the segmenter never saw.
        maps_dir: folder of the probability maps that it predicted, 8-bit PNG named like the images.
        weights: of the segmenter; needed for predicted masks.
    """

    datalist: str | os.PathLike[str]
    maps_dir: str | os.PathLike[str]
    weights: str | os.PathLike[str] | None = None


def prepare_classifier(
    sources: Sequence[Source],
    dataset_dir: Dataset,
    output_dir: str | os.PathLike[str],
    *,
    split: str = "60:10:30",
    seed: int = 0,
    masks: str = "predicted",
) -> dict[str, Any]:
    """Split the images that the segmenters never saw and write ``datalist_classifier.json``.

    One source gives the paper's way: the segmenter's test part is split again. The k folds of a cross-validation give
    the cross-fitted way: every image is in the test part of one fold, and gets that fold's map.

    Args:
        sources: one, or one per fold.
        dataset_dir: the dataset's folder, or those of several.
        output_dir: gets the datalist.
        split: training : validation : test of the classifier, or a fold such as "fold 0 of 5"; groups stay whole.
        seed: of the split.
        masks: "predicted", or "oracle" for ground truth, which only runs named so may use.

    Returns:
        the datalist, with absolute paths.

    Raises:
        UserError: a map is missing or is another segmenter's, a segmenter was trained on another split, near duplicates
            cross a split, an image is in two test parts, masks is unknown, or a class is missing in the training or
            the validation part.
    """
    if masks not in MASK_SOURCES:
        raise UserError(f"masks '{masks}': give one of {', '.join(MASK_SOURCES)}")
    roots = find_roots(dataset_dir)
    records: dict[str, dict[str, Any]] = {}
    segmenters: list[dict[str, Any]] = []
    for number, source in enumerate(sources):
        segmentation = load_datalist(source.datalist, roots)
        for name in (segmentation["split"], split):
            if is_by_image(name):
                raise UserError(f"split '{name}': near duplicates cross it; no classifier is judged by such a split")
        if masks == "predicted":
            segmenters.append(_check_origin(segmentation, source))
            _check_pixels(source, roots)
        test = segmentation["test"]
        if masks == "predicted" and source.weights is not None:
            # What the segmenter's own start weights have seen is no more unseen than its training images.
            test = unseen(test, segmentation, roots, [Path(source.datalist).parent], source.weights)
        for record in test:
            if record["class"] not in TARGETS:
                continue
            made = _record(record, roots, masks, number)
            if records.setdefault(made["image"], made) is not made:
                raise UserError(f"{record['image']}: in the test part of two segmenters; give the folds of one split")
    datalist: dict[str, Any] = {
        **{
            key: segmentation[key]
            for key in ("name", "synthetic", "source", "dataset_sha256", "datasets")
            if key in segmentation
        },
        "description": "Benign or malignant; images that their segmenter never trained on.",
        "labels": {"0": "benign", "1": "malignant"},
        "masks": masks,
        "segmenter_sha256": [card["sha256"] for card in segmenters],
        "segmentation_split": segmentation["split"] if len(sources) == 1 else f"{len(sources)} folds",
        "segmentation_seed": segmentation["seed"],
        "split": split,
        "seed": seed,
    }
    cases = [
        Case(record["image"], (), record["class"], group=record["group"], dataset=record.get("dataset", ""))
        for record in records.values()
    ]
    for part, members in split_by_name(cases, split, seed).items():
        datalist[part] = [records[case.image] for case in members]
    datalist["split_sha256"] = split_checksum(datalist)
    _check_classes(datalist)
    check_no_group_crosses(datalist)
    write_json(Path(output_dir) / DATALIST, datalist)
    return load_classifier_datalist(Path(output_dir) / DATALIST, roots, [source.maps_dir for source in sources])


def load_classifier_datalist(
    datalist: str | os.PathLike[str],
    dataset_dir: Dataset | Roots,
    maps_dirs: Sequence[str | os.PathLike[str]],
    none_below: float | None = None,
) -> dict[str, Any]:
    """Read a classifier's datalist with absolute paths in its records.

    Where the segmenter's presence head told that there is no lesion, a record has ``told_none``.

    Args:
        datalist: the file.
        dataset_dir: the dataset's folder, or those of several.
        maps_dirs: of the sources that it was made from, in their order.
        none_below: the probability of a lesion below which none is told of, in place of that of each segmenter's card.

    Raises:
        UserError: it is not readable, a group crosses its parts, or a file is missing.
    """
    mend = "make it anew: delete it and run the training again"
    content = read_json(datalist, mend)
    missing = [
        key for key in ("masks", "split", "seed", "segmenter_sha256", "split_sha256", *PARTS) if key not in content
    ]
    if missing:
        raise InputError(datalist, f"is no classifier datalist (it lacks {', '.join(missing)})", mend)
    check_no_group_crosses(content)
    roots, maps = find_roots(dataset_dir), [Path(path).resolve() for path in maps_dirs]
    told = [read_presence(folder) for folder in maps] if content["masks"] == "predicted" else []
    for part in PARTS:
        for record in content[part]:
            record["image"] = str(_locate(roots, record["image"], datalist))
            if not os.path.isfile(split_frame(record["image"])[0]):
                mend = "give the dataset's own folder"
                raise InputError(record["image"], "is named in the datalist but missing", mend)
            if content["masks"] == "oracle":
                record["probability"] = [str(_locate(roots, path, datalist)) for path in record["probability"]]
            else:
                if record["source"] >= len(maps):
                    raise InputError(datalist, "was made from more segmenters than are given", mend)
                presence, own = told[record["source"]]
                limit = own if none_below is None else none_below
                if presence.get(record["probability"], limit) < limit:
                    record["told_none"] = True  # an evaluation calls it benign
                record["probability"] = str(maps[record["source"]] / record["probability"])
                if not os.path.isfile(record["probability"]):
                    raise InputError(record["probability"], "is named in the datalist but missing", "segment again")
    return content


def ensure_classifier_prepared(
    dataset_dir: Dataset,
    sources: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike[str],
    split: str,
    seed: int,
    masks: str,
    none_below: float | None = None,
) -> dict[str, Any]:
    """The classifier's datalist, made now unless it was before; what the classifier's configs call.

    Arguments are those of `prepare_classifier`, each source as a dict of what a `Source` has, and `none_below` as
    `load_classifier_datalist` takes it.

    Raises:
        UserError: the folder holds one of another split, seed, source of masks or segmenter; ground truth is asked
            for in a folder whose name does not say ``oracle``; or as `prepare_classifier`.
    """
    if masks == "oracle" and "oracle" not in Path(output_dir).resolve().name:
        raise UserError(
            f"{output_dir}: ground-truth masks reach the classifier only in a run that is named so; "
            "give an --output_dir whose name contains 'oracle'"
        )
    path, origins = Path(output_dir) / DATALIST, [Source(**source) for source in sources]
    for origin in origins:
        prepared = Path(origin.datalist).parent
        if (prepared / CASES).exists():  # a list that somebody wrote by hand has no cases to compare with
            require_current(dataset_dir, prepared)
    if not path.exists():
        prepare_classifier(origins, dataset_dir, output_dir, split=split, seed=seed, masks=masks)
    datalist = load_classifier_datalist(path, dataset_dir, [source.maps_dir for source in origins], none_below)
    if datalist["masks"] == "oracle" and masks == "predicted":
        raise InputError(path, "was made of ground-truth masks", "give --masks oracle, or name another --output_dir")
    # The origin of the maps was checked when the datalist was made; it holds for these segmenters alone.
    segmenters = [_require_segmenter(source.weights)["sha256"] for source in origins] if masks == "predicted" else []
    dataset_sha256 = read_json(origins[0].datalist).get("dataset_sha256")
    if datalist["dataset_sha256"] != dataset_sha256:
        raise InputError(path, "the data changed since it was made", "name another --output_dir")
    for key, wanted in (("split", split), ("seed", seed), ("masks", masks), ("segmenter_sha256", segmenters)):
        if datalist[key] != wanted:
            raise InputError(path, f"was made with {key} {datalist[key]}, not {wanted}", "name another --output_dir")
    return datalist


def name_sources(
    segmentation_dir: str | os.PathLike[str],
    prepared_dir: str | os.PathLike[str],
    folds: int | None = None,
    segmenter: str | os.PathLike[str] | None = None,
    maps_dir: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Name the sources of a classifier after the folders that segmentation runs leave behind.

    Args:
        segmentation_dir: run folder of the segmenter, with the maps in ``predictions/probabilities``; with folds it is
            the first part of their names, followed by ``_fold0``, ``_fold1`` …
        prepared_dir: of the segmenter's datalist, or its name's first part likewise.
        folds: how many; None for one segmenter.
        segmenter, maps_dir: of one segmenter, where they lie elsewhere.
    """
    sources = []
    for suffix in [""] if folds is None else [f"_fold{fold}" for fold in range(folds)]:
        run = Path(f"{os.fspath(segmentation_dir)}{suffix}")
        sources.append(
            {
                "datalist": Path(f"{os.fspath(prepared_dir)}{suffix}") / SEGMENTATION_DATALIST,
                "maps_dir": maps_dir or run / "predictions" / "probabilities",
                "weights": segmenter or run / "model.pt",
            }
        )
    return sources


def middle_threshold(sources: Sequence[Mapping[str, Any]], default: float = 0.5) -> float:
    """The median of the thresholds on the segmenters' cards; the default where none has a card, as in oracle runs."""
    thresholds = [card["threshold"] for source in sources if "threshold" in (card := read_card(source["weights"]))]
    return float(statistics.median(thresholds)) if thresholds else default


def _check_origin(segmentation: dict[str, Any], source: Source) -> dict[str, Any]:
    """Refuse maps of another segmenter, and of one that may have trained on the images it segmented."""
    card = _require_segmenter(source.weights)
    pairs = (("dataset_sha256", "dataset_sha256"), ("split", "split"), ("seed", "split_seed"))
    for ours, theirs in (*pairs, ("split_sha256", "split_sha256")):
        if card.get(theirs) != segmentation[ours]:
            raise UserError(
                f"{source.weights}: trained with {theirs} {card.get(theirs)}, but the datalist has "
                f"{segmentation[ours]}; use the datalist of its own training, "
                "or it may have seen the images it segments"
            )
    record = Path(source.maps_dir).parent / MAPS_RECORD
    if not record.exists():
        mend = (
            "segment the images: python -m monai.bundle run --config_file configs/inference.json --dataset_dir DATASET "
            f"--weights {source.weights} --output_dir {record.parent}"
        )
        raise InputError(record, "is missing, so nothing tells which segmenter made the maps", mend)
    if read_json(record, "segment again").get("sha256") != card["sha256"]:
        raise InputError(source.maps_dir, f"holds the maps of another segmenter than {source.weights}", "segment again")
    return card


def _check_pixels(source: Source, roots: Roots) -> None:
    """Refuse maps of images that were changed since they were segmented, though the segmenter is the same."""
    maps, cases = Path(source.maps_dir), Path(source.datalist).parent / CASES
    recorded = read_json(maps.parent / MAPS_RECORD).get("pixels", {})
    for case in read_cases(cases).cases if cases.exists() else ():
        seen = recorded.get(output_name(Path(case.image), Path()).as_posix())
        if seen is not None and seen != case.sha256[:DIGITS]:
            reason = f"the data changed since {maps.parent} was predicted"
            raise InputError(
                roots.absolute(case.image), reason, f"delete {maps.parent} to have the images segmented again"
            )


def _require_segmenter(weights: str | os.PathLike[str] | None) -> dict[str, Any]:
    if weights is None:
        raise UserError("predicted masks need the weights of the segmenter that made them; give --segmenter model.pt")
    return require_card(weights, ("sha256", "threshold"))


def _check_classes(datalist: dict[str, Any]) -> None:
    """Refuse a split that would only fail after the training, when the operating points are chosen."""
    for part in ("training", "validation"):
        for label in TARGETS:
            if not any(record["class"] == label for record in datalist[part]):
                groups = len({r["group"] for each in PARTS for r in datalist[each] if r["class"] == label})
                raise UserError(
                    f"{datalist['name']}: no {label} image is left for {part}: {groups} patients, or groups of near "
                    f"duplicates, are {label} among what the segmenter never saw; add cases or change --split"
                )


def _locate(roots: Roots, relative: str, datalist: str | os.PathLike[str]) -> Path:
    try:
        return roots.absolute(relative)
    except ValueError as error:
        raise InputError(datalist, str(error), "give the datasets that it was made from as dataset_dir") from error


def _record(record: dict[str, Any], roots: Roots, masks: str, source: int) -> dict[str, Any]:
    relative = roots.relative(record["image"])
    probability: str | list[str]
    if masks == "oracle":
        probability = [roots.relative(path) for path in record["label"]]
    else:
        probability = output_name(Path(relative), Path()).as_posix()
    return {
        "image": relative,
        "probability": probability,
        "source": source,
        "label": TARGETS[record["class"]],
        "class": record["class"],
        "group": record["group"],
        **{key: record[key] for key in ("dataset", "patient", "details") if key in record},
    }
