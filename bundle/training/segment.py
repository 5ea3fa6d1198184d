# SPDX-License-Identifier: Apache-2.0
"""The maps that a classifier learns from: predicted now where a segmentation run has left none."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from bundle.data.folder import SOME_CASES_FAILED
from bundle.data.names import MAPS_RECORD
from bundle.errors import UserError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
MAPS = "probabilities"
"""The folder of the maps in what configs/inference.json writes."""


def segment_if_needed(
    dataset_dir: str | os.PathLike[str] | Sequence[str], sources: Sequence[Mapping[str, Any]], needed: bool = True
) -> None:
    """Segment a dataset with each segmenter whose maps are not there, as configs/inference.json does.

    Args:
        dataset_dir: the dataset.
        sources: as `bundle.data.classifier.name_sources` gives them.
        needed: false where no predicted masks are wanted, or a tool gives them.

    Raises:
        UserError: a segmenter is not there, or could not segment.
    """
    if needed and idist.get_rank() == 0:
        for source in sources:
            output, weights = Path(source["maps_dir"]).parent, source["weights"]
            if not (output / MAPS_RECORD).exists() and Path(source["maps_dir"]).name == MAPS:
                _segment(dataset_dir, Path(weights), output)
    idist.barrier()


def _segment(dataset_dir: str | os.PathLike[str] | Sequence[str], weights: Path, output: Path) -> None:
    if not weights.is_file():
        raise UserError(f"{weights}: no such segmenter; train it first with configs/train.json, or name --segmenter")
    if isinstance(dataset_dir, (str, os.PathLike)):
        folder = os.path.abspath(dataset_dir)
    else:
        folder = str([os.path.abspath(path) for path in dataset_dir])
    words = ["--config_file", str(ROOT / "configs" / "inference.json"), "--dataset_dir", folder]
    words += ["--weights", str(weights.absolute()), "--output_dir", str(output.absolute())]
    logger.info("%s holds no maps yet: segmenting all images with %s", output, weights)
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *words]
    # Alone, also where this process is one of several.
    alone = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(command, cwd=ROOT, env=alone, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode not in (0, SOME_CASES_FAILED) or not (output / MAPS_RECORD).exists():
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise UserError(f"{output}: could not be segmented: {lines[-1] if lines else f'exit code {done.returncode}'}")
