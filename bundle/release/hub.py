# SPDX-License-Identifier: Apache-2.0
"""The folder that a hub of models shows: the zoo's package, unpacked, with a model card that machines can read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bundle.errors import UserError
from bundle.files import make_folder, read_json, write_atomically
from bundle.networks.weights import SEGMENTER, read_card
from bundle.release.package import list_files
from bundle.reports.markdown import dataset

TAGS = ("monai", "medical-imaging", "ultrasound", "breast", "segmentation", "classification", "research-only")
_SEGMENTATION = {"mean_dice": "Dice", "pixel_accuracy": "pixel accuracy"}
_CLASSIFICATION = {
    "classifier_auroc": "AUROC",
    "classifier_accuracy": "accuracy",
    "classifier_sensitivity": "sensitivity",
    "classifier_specificity": "specificity",
}


def prepare_folder(root: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> list[str]:
    """Copy the zoo's package into an empty folder, with the model card as ``README.md`` of its top.

    Returns:
        the files, relative to the folder, sorted.

    Raises:
        UserError: the folder is not empty, or a file of the package is missing or too large.
    """
    folder = Path(output_dir)
    names = list_files(root)
    make_folder(folder)
    if any(folder.iterdir()):
        raise UserError(f"{folder}: not empty; name a new folder, so that nothing else is uploaded")
    for name in names:
        make_folder((folder / name).parent)
        shutil.copyfile(Path(root) / name, folder / name)
    write_atomically(folder / "README.md", write_card(root))
    return sorted([*names, "README.md"])


def write_card(root: str | os.PathLike[str]) -> str:
    """Return the model card: a YAML header from the metadata, then ``docs/README.md`` with its links mended."""
    metadata = read_json(Path(root) / "configs" / "metadata.json")
    card = read_card(Path(root) / "models" / SEGMENTER)
    names = [dataset(folder) for folder in card.get("datasets") or [card.get("name", "BUSI")]]
    tested = {
        "name": f"{' and '.join(names)}, images that the network that answers never saw in training",
        "type": names[0].lower(),
    }
    header = {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "tags": list(TAGS),
        "datasets": [name.lower() for name in names],
        "metrics": ["dice", "roc_auc", "accuracy"],
        "model-index": [
            {
                "name": metadata["name"],
                "results": [
                    _result("image-segmentation", "lesion", tested, metadata["eval_metrics"], _SEGMENTATION),
                    _result(
                        "image-classification", "malignant or not", tested, metadata["eval_metrics"], _CLASSIFICATION
                    ),
                ],
            }
        ],
    }
    body = (Path(root) / "docs" / "README.md").read_text(encoding="utf-8")
    body = re.sub(r"\]\((?!https?:|#)([^)]+)\)", r"](docs/\1)", body)
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=120)}---\n{body}"


def _result(
    task: str, name: str, dataset: Mapping[str, str], scores: Mapping[str, float], names: Mapping[str, str]
) -> dict[str, Any]:
    """One entry of the hub's model index; the interval stands in the metric's name, for which the hub has no field."""
    return {
        "task": {"type": task, "name": name},
        "dataset": dict(dataset),
        "metrics": [
            {
                "type": key.removeprefix("classifier_"),
                "name": f"{shown} [95 % CI {scores[f'{key}_low']:.3f}, {scores[f'{key}_high']:.3f}]",
                "value": scores[key],
            }
            for key, shown in names.items()
            if f"{key}_low" in scores
        ],
    }


def upload(folder: str | os.PathLike[str], repository: str, private: bool, message: str) -> str:
    """Upload a prepared folder to the Hugging Face hub; the login is the one that ``hf auth login`` stored.

    Returns:
        the address of the commit.

    Raises:
        UserError: huggingface-hub is not installed, or the hub refuses or can not be reached.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UserError("uploading needs huggingface-hub; pip install -r requirements-hub.txt, or --dry-run") from None
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=message))
    except (OSError, ValueError) as error:  # the hub's own errors are of these kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{repository}: not uploaded ({reason}); the folder {folder} is kept") from error
