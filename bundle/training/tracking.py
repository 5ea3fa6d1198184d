# SPDX-License-Identifier: Apache-2.0
"""What experiment tracking needs of a trainer."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events


class ListOutput:
    """Put a trainer's output, a dict of the whole batch, into a list after each iteration.

    MONAI's settings for ``--tracking mlflow``, and other tools, take the loss from the first item of a decollated
    batch. Taking every batch apart for that one number would cost time. To stand last among the handlers of a config,
    after all that read the dict; what a tool appends comes after it.
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer that does not decollate."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state  # ignite types a state's output as a number
        state.output = [state.output]
