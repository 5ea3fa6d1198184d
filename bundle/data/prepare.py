# SPDX-License-Identifier: Apache-2.0
"""Prepare a dataset: check it, group near duplicates, split it, and write what training and evaluation read."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from bundle.data.cases import CASES, read_cases, write_cases
from bundle.data.changes import Looks, look_at, note_looks, require_current
from bundle.data.check import list_dataset
from bundle.data.class_counts import plot_counts
from bundle.data.datalists import DATALIST, MEND, Datalist, build_datalist, check_no_group_crosses, load_datalist
from bundle.data.duplicates import find_pairs, group_cases, same_patients
from bundle.data.groups import drop_conflicts, group_table, read_group_table
from bundle.data.joint import check_datasets
from bundle.data.patients import patient_salt
from bundle.data.roots import Dataset, Roots, dataset_folder, dataset_name, find_roots
from bundle.data.split_names import (
    is_by_image,
    is_own_fold,
    parse_fold,
    parse_left_out,
    parse_one_dataset,
    parse_split,
)
from bundle.data.splits import PARTS
from bundle.errors import InputError, UserError
from bundle.files import make_folder, read_json, write_atomically, write_json

logger = logging.getLogger(__name__)

PHANTOM_FOLDER = "phantom"
"""A dataset folder of this name is filled with the synthetic phantom if it is not there."""

CONFLICTS = ("keep", "drop")

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
    groups: PathLike | None = None,
) -> None:
    """Check, group and split a dataset; write cases.json, groups.csv, class_counts.png and the datalists.

    Args:
        dataset: a folder (of a known layout, or with manifest.csv) or a CSV manifest; or a list of such, which are used
            together: each in its own layout, and near duplicates across them stay in one part.
        output_dir: made if need be; files of an earlier call are replaced.
        split: of `datalist_segmentation.json`: training:validation:test, a fold such as "fold 0 of 5", or both, see
            `split_by_name`.
        folds: also write `datalist_segmentation_fold0.json`, …, one per fold of a cross-validation.
        seed: any integer; the same seed and groups give the same split on every machine.
        skip_bad: leave bad files out and list them in cases.json, instead of raising.
        conflicts: what becomes of groups that stand in several classes: "keep" them, together in one part, or "drop"
            them from the datalists and list them in cases.json as left out.
        leave_out: flags of `bundle.data.cases.FLAGS`; images with one of them are left out and listed likewise.
        groups: a groups.csv of an earlier call, taken in place of a search: what the search finds of pairs that are
            hard to tell depends a little on the processor and on what other images are there.

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
    if groups is None:
        pairs = find_pairs(checked.cases, roots)
    else:
        pairs = read_group_table(Path(groups), checked.cases) + same_patients(checked.cases)
    group_of = group_cases(checked.cases, pairs)
    case_list = replace(checked, cases=tuple(replace(case, group=group_of[case.image]) for case in checked.cases))
    table = group_table(case_list.cases, pairs)
    if conflicts == "drop":
        case_list = drop_conflicts(case_list)
    choices = _choices(skip_bad, conflicts, leave_out)
    datalists = {DATALIST: {**build_datalist(case_list, split, seed), "choices": choices}}
    for fold in range(folds or 0):
        name = f"{Path(DATALIST).stem}_fold{fold}.json"
        datalists[name] = {**build_datalist(case_list, f"fold {fold} of {folds}", seed), "choices": choices}
    _check_parts(datalists)
    make_folder(output_dir)
    for stale in output_dir.glob(f"{Path(DATALIST).stem}_fold*.json"):
        if stale.name not in datalists:
            stale.unlink(missing_ok=True)
    write_cases(output_dir / CASES, case_list)
    for name, path in roots.datasets.items():
        note_looks(output_dir, dataset_folder(path), looks[name], f"{name}/" if name else "")
    write_atomically(output_dir / "groups.csv", table)
    write_atomically(output_dir / "class_counts.png", plot_counts(datalists[DATALIST]))
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
    datalist = {
        **build_datalist(case_list, split, seed),
        "choices": read_json(source / DATALIST, MEND).get("choices", []),
    }
    _check_parts({DATALIST: datalist})
    make_folder(target)
    write_cases(target / CASES, case_list)
    write_atomically(target / "groups.csv", (source / "groups.csv").read_bytes())
    write_atomically(target / "class_counts.png", plot_counts(datalist))
    write_json(target / DATALIST, datalist)


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


def _look_at_all(roots: Roots) -> dict[str, Looks]:
    """How the files of each dataset look, see `look_at`."""
    return {name: look_at(dataset_folder(path), list_dataset(path)[1]) for name, path in roots.datasets.items()}


def _choices(skip_bad: bool, conflicts: str, leave_out: Collection[str]) -> list[str]:
    """The choices that leave images out, as the command line names them; none by default."""
    found = ["--skip-bad"] if skip_bad else []
    found += ["--conflicts drop"] if conflicts == "drop" else []
    return [*found, *([f"--leave-out {' '.join(sorted(leave_out))}"] if leave_out else [])]


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
