# SPDX-License-Identifier: Apache-2.0
"""Prepare a dataset: check it, group near duplicates, split it, and write what training and evaluation read."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.data.cases import (
    LABELS,
    LESION_LABELS,
    UNCLASSED,
    Case,
    CaseList,
    read_cases,
    relative_path,
    write_cases,
)
from bundle.data.changes import Looks, look_at, note_looks, require_unchanged
from bundle.data.check import LEFT_OUT, list_dataset
from bundle.data.duplicates import Pair, find_pairs, group_cases
from bundle.data.joint import check_datasets, list_datasets
from bundle.data.patients import patient_salt
from bundle.data.roots import Dataset, Roots, dataset_folder, dataset_name, find_roots
from bundle.data.splits import (
    PARTS,
    UNLABELLED,
    check_no_group_crosses,
    is_by_image,
    is_own_fold,
    oversample,
    parse_fold,
    parse_left_out,
    parse_one_dataset,
    parse_split,
    split_by_name,
    split_checksum,
)
from bundle.errors import InputError, UserError
from bundle.files import read_json, write_atomically, write_json
from bundle.readers import split_frame

logger = logging.getLogger(__name__)

CASES = "cases.json"
DATALIST = "datalist_segmentation.json"
PHANTOM_FOLDER = "phantom"
"""A dataset folder of this name is filled with the synthetic phantom if it is not there."""

HEADER = ("name", "description", "synthetic", "source", "dataset_sha256", "split", "seed", "labels", "split_sha256")
CONFLICTS = ("keep", "drop")
LISTS = tuple(f"{part}{kind}" for kind in ("", "_normal") for part in PARTS)
_MEND = "make it anew with scripts/prepare_data.py"

Datalist = dict[str, Any]
PathLike = str | os.PathLike[str]


def prepare(
    dataset: Dataset | Roots,
    output_dir: PathLike,
    *,
    split: str = "15:5:80",
    folds: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    conflicts: str = "keep",
    leave_out: Collection[str] = (),
) -> None:
    """Check, group and split a dataset; write cases.json, groups.csv, class_counts.png and the datalists.

    Args:
        dataset: a folder (of a known layout, or with manifest.csv) or a CSV manifest; or a list of such, which are used
            together: each in its own layout, and near duplicates across them stay in one part.
        output_dir: made if need be; files of an earlier call are replaced.
        split: of `datalist_segmentation.json`: training:validation:test, a fold such as "fold 0 of 5", or both, see
            `split_by_name`.
        folds: also write `datalist_segmentation_fold0.json`, …, one per fold of a cross-validation.
        seed: any integer; the same seed gives the same files on every machine.
        skip_bad: leave bad files out and list them in cases.json, instead of raising.
        conflicts: what becomes of groups that stand in several classes: "keep" them, together in one part, or "drop"
            them from the datalists and list them in cases.json as left out.
        leave_out: flags of `bundle.data.cases.FLAGS`; images with one of them are left out and listed likewise.

    Raises:
        UserError: files are bad, the layout is unknown, conflicts is unknown, or a part of the split would hold no
            lesion.
    """
    if conflicts not in CONFLICTS:
        raise UserError(f"conflicts '{conflicts}': give one of {', '.join(CONFLICTS)}")
    parse_split(split)
    roots, output_dir = find_roots(dataset), Path(output_dir)
    looks = _look_at_all(roots)  # before anything is read
    checked = check_datasets(roots, skip_bad=skip_bad, leave_out=leave_out, salt=lambda: patient_salt(output_dir))
    pairs = find_pairs(checked.cases, roots)
    groups = group_cases(checked.cases, pairs)
    case_list = replace(checked, cases=tuple(replace(case, group=groups[case.image]) for case in checked.cases))
    table = group_table(case_list.cases, pairs)
    if conflicts == "drop":
        case_list = _drop_conflicts(case_list)
    choices = _choices(skip_bad, conflicts, leave_out)
    datalists = {DATALIST: {**_datalist(case_list, split, seed), "choices": choices}}
    for fold in range(folds or 0):
        name = f"{Path(DATALIST).stem}_fold{fold}.json"
        datalists[name] = {**_datalist(case_list, f"fold {fold} of {folds}", seed), "choices": choices}
    _check_parts(datalists)
    _make_folder(output_dir)
    for stale in output_dir.glob(f"{Path(DATALIST).stem}_fold*.json"):
        if stale.name not in datalists:
            stale.unlink(missing_ok=True)
    write_cases(output_dir / CASES, case_list)
    for name, path in roots.datasets.items():
        note_looks(output_dir, dataset_folder(path), looks[name], f"{name}/" if name else "")
    write_atomically(output_dir / "groups.csv", table)
    write_atomically(output_dir / "class_counts.png", _plot_counts(datalists[DATALIST]))
    # The plain datalist comes last: where it is, all other files are.
    for name in reversed(datalists):
        write_json(output_dir / name, datalists[name])


def split_again(prepared: PathLike, output_dir: PathLike, split: str, seed: int) -> None:
    """Split the cases of a prepared folder in another way; what was read and grouped there is taken as it is.

    Args:
        prepared: what `prepare` wrote.
        output_dir: gets cases.json, groups.csv, class_counts.png and the datalist.
        split, seed: as `prepare` takes them.

    Raises:
        UserError: the folder is no prepared one, or a part of the split would hold no lesion.
    """
    source, target = Path(prepared), Path(output_dir)
    case_list = read_cases(source / CASES)
    datalist = {**_datalist(case_list, split, seed), "choices": read_json(source / DATALIST, _MEND).get("choices", [])}
    _check_parts({DATALIST: datalist})
    _make_folder(target)
    write_cases(target / CASES, case_list)
    write_atomically(target / "groups.csv", (source / "groups.csv").read_bytes())
    write_atomically(target / "class_counts.png", _plot_counts(datalist))
    write_json(target / DATALIST, datalist)


def _check_parts(datalists: Mapping[str, Datalist]) -> None:
    """Refuse parts without a lesion, but an empty test part that was asked for, and groups in two parts."""
    for name, datalist in datalists.items():
        ratio, *_ = parse_split(datalist["split"])
        tested = ratio is None or ratio[2] > 0
        empty = [part for part in PARTS if not datalist[part] and (tested or part != "test")]
        if empty:
            patients = len({record["group"] for part in PARTS for record in datalist[part]})
            raise UserError(
                f"{datalist['name']}: no lesion is left for {', '.join(empty)} ({name}): {patients} patients, or "
                "groups of near duplicates, have one; add cases or change --split"
            )
        check_no_group_crosses(datalist)


def _choices(skip_bad: bool, conflicts: str, leave_out: Collection[str]) -> list[str]:
    """The choices that leave images out, as the command line names them; none by default."""
    found = ["--skip-bad"] if skip_bad else []
    found += ["--conflicts drop"] if conflicts == "drop" else []
    return [*found, *([f"--leave-out {' '.join(sorted(leave_out))}"] if leave_out else [])]


def default_folder(dataset: Dataset, split: str, seed: int, root: PathLike = ".") -> Path:
    """Where a dataset is prepared unless a folder is named, by scripts and configs alike.

    Args:
        dataset: its folder or manifest, or those of several.
        split, seed: as `prepare` takes them.
        root: the bundle's.
    """
    return Path(root) / "data" / "prepared" / prepared_name(dataset_name(dataset), split, seed)


def prepared_name(dataset: str, split: str, seed: int) -> str:
    """Name the folder of a prepared dataset.

    Such as "BUSI_15-5-80_seed0", "BUSI_5-folds_seed0_fold2", "BUSI_15-5-80_2-folds_seed0_fold1".

    Args:
        dataset: its name.
        split: as `prepare` takes it; "5 folds" gives what the names of the five folds begin with.
        seed: of the split.
    """
    ratio, _, last = split.rpartition(",")
    fold = parse_fold(last)
    if fold is None:
        return f"{dataset}_{split.replace(':', '-').replace(' ', '-')}_seed{seed}"
    name = "_".join([dataset, *([ratio.strip().replace(":", "-")] if ratio else [])])
    return f"{name}_{fold[1]}-{'own-' if is_own_fold(last) else ''}folds_seed{seed}_fold{fold[0]}"


def load_datalist(datalist: PathLike, dataset_dir: Dataset | Roots) -> Datalist:
    """Read a datalist file with absolute paths in its records: "image" one path, "label" a list of mask paths.

    Raises:
        UserError: it is no datalist of this format, a group crosses its parts, or a file is not in dataset_dir.
    """
    file, roots = Path(datalist), find_roots(dataset_dir)
    content = read_json(file, _MEND)
    try:
        missing = [key for key in (*HEADER, *LISTS) if key not in content]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        check_no_group_crosses(content)
        lists = (*LISTS, UNLABELLED) if UNLABELLED in content else LISTS
        for name in lists:
            content[name] = [_absolute(record, roots) for record in content[name]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(file, f"is no datalist of the bundle ({error or type(error).__name__})", _MEND) from error
    for name in lists:
        for record in content[name]:
            for path in (record["image"], *record["label"]):
                if not os.path.isfile(split_frame(path)[0]):
                    raise InputError(path, f"is named in {file.name} but missing", "give the dataset's own folder")
    return content


def ensure_prepared(dataset_dir: Dataset, prepared_dir: PathLike, *, split: str, seed: int) -> Datalist:
    """The datalist of a dataset, prepared now unless it was before; what a training configuration calls.

    A dataset folder that is named `phantom` and is missing is filled first. Several processes may call this at once:
    each writes the same content, whole.

    Raises:
        UserError: prepared_dir holds another split, another seed or another dataset; or as `prepare`.
    """
    roots, prepared = find_roots(dataset_dir), Path(prepared_dir)
    for dataset in roots.datasets.values():
        if dataset.name == PHANTOM_FOLDER and not dataset.exists():
            from bundle.data.phantom import ensure_phantom

            ensure_phantom(dataset)
    if not (prepared / DATALIST).exists():
        prepare(roots, prepared, split=split, seed=seed)
    datalist = load_datalist(prepared / DATALIST, roots)
    _check_prepared_for(datalist, roots, prepared, split, seed)
    if datalist.get("choices"):
        left_out = len(read_cases(prepared / CASES).skipped)
        told = ", ".join(datalist["choices"])
        logger.warning("%s was prepared with %s: this run leaves out %d images", prepared, told, left_out)
    return datalist


def count_table(prepared_dir: PathLike) -> str:
    """A short text table of the images per class and part of a prepared dataset, and what was left out."""
    datalist, case_list = read_json(Path(prepared_dir) / DATALIST, _MEND), read_cases(Path(prepared_dir) / CASES)
    counts = _count_classes(datalist)
    lines = ["".join(f"{text:>12}" for text in ("", *PARTS, "all"))]
    for label in _labels_in(counts):
        numbers = [counts[part][label] for part in PARTS]
        lines.append("".join(f"{text:>12}" for text in (label, *numbers, sum(numbers))))
    sizes = Counter(case.group for case in case_list.cases)
    repeated = [size for size in sizes.values() if size > 1]
    lines.append(f"{sum(repeated)} images stand in {len(repeated)} groups of near duplicates or of one patient.")
    flags = Counter(flag for case in case_list.cases for flag in case.flags)
    if flags:
        told = ", ".join(f"{flag} {count}" for flag, count in sorted(flags.items()))
        lines.append(f"Flagged images, which --leave-out can leave out: {told}.")
    if case_list.skipped:
        lines.append(f"{len(case_list.skipped)} images were left out; {CASES} says why, under 'skipped'.")
    return "\n".join(lines)


def find_conflicts(cases: Sequence[Case]) -> set[str]:
    """The groups that stand in several classes: one frame or patient with two diagnoses."""
    labels: dict[str, str] = {}
    known = [case for case in cases if case.label != UNCLASSED]
    return {case.group for case in known if labels.setdefault(case.group, case.label) != case.label}


def _drop_conflicts(case_list: CaseList) -> CaseList:
    conflicts = find_conflicts(case_list.cases)
    dropped = tuple(
        {
            "path": case.image,
            "reason": f"{LEFT_OUT} its group {case.group} stands in several classes",
            "mend": "correct the labels, or keep it with --conflicts keep",
        }
        for case in case_list.cases
        if case.group in conflicts
    )
    kept = tuple(case for case in case_list.cases if case.group not in conflicts)
    return replace(case_list, cases=kept, skipped=(*case_list.skipped, *dropped))


def _datalist(case_list: CaseList, split: str, seed: int) -> Datalist:
    parts = split_by_name(case_list.cases, split, seed)
    datalist: Datalist = {
        "name": case_list.name,
        "description": "Breast ultrasound lesion segmentation; paths are relative to the dataset folder.",
        "synthetic": case_list.synthetic,
        "source": case_list.source,
        "dataset_sha256": case_list.dataset_sha256,
        "split": split,
        "seed": seed,
        "labels": {"0": "background", "1": "lesion"},
    }
    for name in (*LISTS, UNLABELLED) if UNLABELLED in parts else LISTS:
        wanted = ("normal",) if name.endswith("_normal") else LESION_LABELS
        members = parts[name.removesuffix("_normal")]
        datalist[name] = [_record(case) for case in members if case.label in wanted]
    if case_list.datasets:
        datalist["datasets"] = case_list.datasets
    return {**datalist, "split_sha256": split_checksum(datalist)}


def _record(case: Case) -> dict[str, Any]:
    record = {"image": case.image, "label": list(case.masks), "class": case.label, "group": case.group}
    told = {"dataset": case.dataset, "patient": case.patient, "details": case.details}
    return {**record, **{key: value for key, value in told.items() if value}}


def _absolute(record: Mapping[str, Any], roots: Roots) -> dict[str, Any]:
    if record["class"] not in (*LABELS, UNCLASSED) or not isinstance(record["label"], list):
        raise ValueError(f"record {record}")
    image, *masks = (str(roots.absolute(relative_path(path))) for path in (record["image"], *record["label"]))
    return {**record, "image": image, "label": masks}


def _check_prepared_for(datalist: Datalist, roots: Roots, prepared: Path, split: str, seed: int) -> None:
    mend = f"name another folder, or delete {prepared} to have it made anew"
    for what, found, wanted in (
        (
            "split",
            *(
                (parse_split(text), is_by_image(text), parse_left_out(text), parse_one_dataset(text))
                for text in (datalist["split"], split)
            ),
        ),
        ("seed", datalist["seed"], seed),
    ):
        if found != wanted:
            told = (datalist["split"], split) if what == "split" else (found, wanted)
            raise InputError(prepared / DATALIST, f"was made with {what} {told[0]}, not {told[1]}", mend)
    if read_cases(prepared / CASES).dataset_sha256 != datalist["dataset_sha256"]:
        raise InputError(prepared / DATALIST, f"was made from other cases than {CASES} beside it", mend)
    require_current(roots, prepared)


def require_current(dataset_dir: Dataset | Roots, prepared_dir: PathLike) -> None:
    """Check that a dataset still is what a prepared folder was made from: its files, their content, their patients.

    Raises:
        UserError: it is not; or nothing was prepared there.
    """
    roots, prepared = find_roots(dataset_dir), Path(prepared_dir)
    mend = f"name another folder, or delete {prepared} to have it made anew"
    case_list = read_cases(prepared / CASES)
    listed, listing_sha256 = list_datasets(roots)
    if listing_sha256 != case_list.listing_sha256:
        known = len(case_list.cases) + len(case_list.skipped)
        reason = f"was made from another list of files than {roots.name} has now ({known} then, {listed} images now)"
        raise InputError(prepared / CASES, reason, mend)
    for name, dataset in roots.datasets.items():
        require_unchanged(dataset, prepared, case_list, f"{name}/" if name else "")


def _look_at_all(roots: Roots) -> dict[str, Looks]:
    """How the files of each dataset look, see `look_at`."""
    return {name: look_at(dataset_folder(path), list_dataset(path)[1]) for name, path in roots.datasets.items()}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot be made ({error.strerror})", "give a folder that can be written") from error


def group_table(cases: Sequence[Case], pairs: Sequence[Pair]) -> bytes:
    """The content of groups.csv: each image with its group and the first reason why it stands in it."""
    evidence: dict[int, str] = {}
    for pair in pairs:
        evidence.setdefault(pair.first, f"{pair.evidence}: {cases[pair.second].image}")
        evidence.setdefault(pair.second, f"{pair.evidence}: {cases[pair.first].image}")
    table = io.StringIO(newline="")
    writer = csv.writer(table)  # ends rows with "\r\n": with "\n", Python before 3.13 leaves a "\r" in a name unquoted
    writer.writerow(["image", "group", "class", "evidence"])
    for index, case in sorted(enumerate(cases), key=lambda entry: (entry[1].group, entry[1].image)):
        writer.writerow([case.image, case.group, case.label, evidence.get(index, "")])
    return table.getvalue().encode()


def _count_classes(datalist: Datalist) -> dict[str, Counter[str]]:
    return {part: Counter(r["class"] for r in datalist[part] + datalist[f"{part}_normal"]) for part in PARTS}


def _labels_in(counts: Mapping[str, Counter[str]]) -> tuple[str, ...]:
    """The labels to show: the unclassified lesions only where there are any."""
    return (*LABELS, UNCLASSED) if any(count[UNCLASSED] for count in counts.values()) else LABELS


def _plot_counts(datalist: Datalist) -> bytes:
    """class_counts.png: images per class and part; the lesions of the training part also after oversampling."""
    before = _count_classes(datalist)
    after = Counter(record["class"] for record in oversample(datalist["training"], datalist["seed"]))
    bars = [("training", before["training"]), ("training,\noversampled", after)]
    bars += [(part, before[part]) for part in PARTS[1:]]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for place, label in enumerate(_labels_in(before)):
        positions = [column + (place - 1) * 0.27 for column in range(len(bars))]
        drawn = axes.bar(positions, [counts[label] for _, counts in bars], width=0.25, label=label)
        axes.bar_label(drawn, fontsize=8)
    axes.set_xticks(range(len(bars)), [name for name, _ in bars])
    axes.set_ylabel("images")
    axes.set_title(f"{datalist['name']}{' (SYNTHETIC)' if datalist['synthetic'] else ''}: images per class and part")
    axes.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
