# SPDX-License-Identifier: Apache-2.0
"""Handler that writes what an inference run found, one mask and one overlay per image, at native size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from bundle.data.cases import DIGITS
from bundle.data.check import array_sha256
from bundle.data.folder import ImageFolder
from bundle.data.names import MAPS_RECORD, output_name
from bundle.data.roots import Dataset, find_roots
from bundle.files import sha256_of, write_json
from bundle.networks.weights import read_card
from bundle.outputs.png import write_mask, write_overlay, write_probability
from bundle.readers import read_image
from bundle.transforms.lesion import split_presence

if TYPE_CHECKING:
    from ignite.engine import Engine


class WriteMasks:
    """Write ``masks/``, ``probabilities/`` and ``overlays/``, each ``<image>.png``, under the output folder.

    Masks are 0 and 255, probabilities are 8-bit levels (255 is 1.0): what the classifier reads.

    Sub-folders of the input are kept, so equal names in two folders do not collide.

    Args:
        output_dir: where to write; also gets ``segmenter.json``, the card of what made the maps with a checksum of each
            image's pixels and, where a presence head tells it, the probability of a lesion; and ``skipped.json``, what
            was left out, and what shows nothing: its mask and map are empty.
        dataset_dir: the folder that image names are relative to, or those of several datasets.
        images: what is in the folder, for the progress bar and the list of skipped files.
        weights: of the segmenter; its card is kept with the maps.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        dataset_dir: Dataset,
        images: ImageFolder,
        weights: str | os.PathLike[str],
    ) -> None:
        self.folder = Path(output_dir)
        self.roots = find_roots(dataset_dir)
        self.images = images
        self.weights = weights
        self.total = len(images.readable)
        self.pixels: dict[str, str] = {}
        self.presence: dict[str, float] = {}
        self.bar: tqdm[Any] = tqdm(disable=True)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output holds ``pred`` (0/1) and ``probability`` at native size, and, where
        it is told, ``lesion_probability``."""
        from ignite.engine import Events  # whoever predicts has no engine

        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _open(self, _: Engine) -> None:
        # Maps that an earlier run left here are replaced one by one: until the end nobody can say whose they are.
        (self.folder / MAPS_RECORD).unlink(missing_ok=True)
        self.bar = tqdm(total=self.total, desc="segmenting", unit="image")

    def _write(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for item in output:
            path = Path(str(item["image"].meta["filename_or_obj"]))
            name = output_name(Path(self.roots.relative(path)), Path())
            probability = item["probability"].squeeze(0).float().cpu().numpy().clip(0, 1)
            lesion = np.asarray(item["pred"].squeeze(0).cpu()) > 0
            image = read_image(path)
            if (reason := image.unusable) is not None:
                # An answer to a blank screen is no map; the file is written since lists of images name it.
                probability, lesion = np.zeros_like(probability), np.zeros_like(lesion)
                self.images.note_unusable(str(path), reason)
            elif item.get("lesion_probability") is not None:
                self.presence[name.as_posix()] = float(item["lesion_probability"])
            write_mask(lesion, self.folder / "masks" / name)
            write_probability(probability, self.folder / "probabilities" / name)
            self.pixels[name.as_posix()] = array_sha256(image.pixels.astype("<f4"))[:DIGITS]
            write_overlay(image.pixels, lesion, self.folder / "overlays" / name)
            self.bar.update()

    def _finish(self, engine: Engine) -> None:
        self.bar.close()
        _write_record(self.folder, self.weights, self.pixels, self.presence)
        # Written last and always: where it is, all else is there.
        bad = [*self.images.skipped, *self.images.unusable]
        write_json(self.folder / "skipped.json", [error.as_dict() for error in bad])


class WriteMaps:
    """Write the probability maps of an evaluation's images, ``probabilities/<image>.png``: what a classifier reads.

    Args:
        output_dir: where to write; also gets ``segmenter.json``, as `WriteMasks` writes it. None writes nothing.
        dataset_dir: one dataset or several, which the names are relative to.
        weights: of the segmenter; its card is kept with the maps.
    """

    def __init__(
        self, output_dir: str | os.PathLike[str] | None, dataset_dir: Dataset, weights: str | os.PathLike[str]
    ) -> None:
        self.folder = None if output_dir is None else Path(output_dir)
        self.roots = find_roots(dataset_dir)
        self.weights = weights
        self.pixels: dict[str, str] = {}
        self.presence: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output ``pred`` is (C, H, W) per image at native size, see
        `split_presence`."""
        from ignite.engine import Events  # whoever predicts has no engine

        if self.folder is not None:
            engine.add_event_handler(Events.STARTED, self._open)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
            engine.add_event_handler(Events.COMPLETED, self._finish)

    def _open(self, _: Engine) -> None:
        assert self.folder is not None
        # Maps that an earlier run left here are replaced one by one: until the end nobody can say whose they are.
        (self.folder / MAPS_RECORD).unlink(missing_ok=True)

    def _write(self, engine: Engine) -> None:
        assert self.folder is not None
        output: Any = engine.state.output
        for item in output:
            path = str(item["image"].meta["filename_or_obj"])
            name = output_name(Path(self.roots.relative(path)), Path())
            self.pixels[name.as_posix()] = array_sha256(read_image(path).pixels.astype("<f4"))[:DIGITS]
            probability, presence = split_presence(item["pred"])
            if presence is not None:
                self.presence[name.as_posix()] = presence
            write_probability(probability, self.folder / "probabilities" / name)

    def _finish(self, _: Engine) -> None:
        assert self.folder is not None
        _write_record(self.folder, self.weights, self.pixels, self.presence)


def _write_record(
    folder: Path, weights: str | os.PathLike[str], pixels: dict[str, str], presence: dict[str, float]
) -> None:
    """Say whose maps these are, and what belongs to each that is no pixel of it."""
    told = {"lesion_probability": dict(sorted(presence.items()))} if presence else {}
    record = {"sha256": sha256_of(weights), **read_card(weights), "pixels": dict(sorted(pixels.items())), **told}
    write_json(folder / MAPS_RECORD, record)
