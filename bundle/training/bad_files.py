# SPDX-License-Identifier: Apache-2.0
"""Files that cannot be read while a run is on its way: named, counted, and either skipped or the end of the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.data.utils import list_data_collate
from monai.transforms import Compose
from torch.utils.data import get_worker_info

from bundle.errors import InputError, UserError
from bundle.files import write_json

logger = logging.getLogger(__name__)

SKIPPED = "skipped.json"
POLICIES = ("stop", "skip")
_KEY = "bad_files"


class ReadFiles(Compose):
    """MONAI's ``Compose``, for transforms that read files: a file that cannot be read is named.

    Args:
        transforms: as `Compose`.
        bad_files: "stop" ends the run; "skip" returns the error in place of the item, for `collate_readable`.

    Raises:
        InputError: with "stop", a file cannot be read.
        UserError: ``bad_files`` is neither.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]], bad_files: str = "stop") -> None:
        super().__init__(transforms)
        self.stops = _check_policy(bad_files) == "stop"

    def __call__(self, input_: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Transform one item; an earlier error passes through."""
        if isinstance(input_, InputError):
            return input_
        try:
            return super().__call__(input_, *args, **kwargs)
        except Exception as error:
            bad = _bad_file(error)
            if bad is None:
                raise
            # Out of a data worker an exception comes as text only, so there it travels as an item.
            if self.stops and get_worker_info() is None:
                raise bad from None
            return bad


def collate_readable(items: Sequence[Any]) -> dict[str, Any]:
    """Make a batch of the items that could be read; the errors of the others stand under ``bad_files``."""
    bad = [item for item in items if isinstance(item, InputError)]
    good = [item for item in items if not isinstance(item, InputError)]
    batch: dict[str, Any] = list_data_collate(good) if good else {}
    return {**batch, _KEY: bad} if bad else batch


class ReportBadFiles:
    """Name each bad file once, count them, and end the run if the policy says so.

    Args:
        output_dir: gets ``skipped.json`` when files were skipped.
        evaluator: whose batches are watched as well.
        bad_files: "stop" or "skip".
    """

    def __init__(self, output_dir: str | os.PathLike[str], evaluator: Engine, bad_files: str = "stop") -> None:
        self.folder = Path(output_dir)
        self.evaluator = evaluator
        self.stops = _check_policy(bad_files) == "stop"
        self.skipped: dict[str, InputError] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        for watched in (engine, self.evaluator):
            watched.add_event_handler(Events.GET_BATCH_COMPLETED, self._note)
        engine.add_event_handler(Events.COMPLETED, self._count)

    def _note(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        for error in batch.pop(_KEY, []):
            if self.stops:
                raise error
            if error.path not in self.skipped:
                self.skipped[error.path] = error
                logger.warning("skipped: %s", error)
        if not batch:
            raise UserError(f"no file of a whole batch can be read, the last is {error}")

    def _count(self, _: Engine) -> None:
        found: Any = idist.all_gather([error.as_dict() for error in self.skipped.values()])
        everywhere = [record for of_process in found for record in of_process]
        if everywhere and idist.get_rank() == 0:
            write_json(self.folder / SKIPPED, everywhere)
            logger.warning(
                "%d files could not be read and were skipped; %s lists them", len(everywhere), self.folder / SKIPPED
            )


def _check_policy(bad_files: str) -> str:
    if bad_files not in POLICIES:
        raise UserError(f"bad_files '{bad_files}': give one of {', '.join(POLICIES)}")
    return bad_files


def _bad_file(error: BaseException | None) -> InputError | None:
    """The InputError among the causes of an error; MONAI wraps what a transform raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
