# SPDX-License-Identifier: Apache-2.0
"""A node of this process, and an archive that gets its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom, of requirements-clinic.txt, is not installed")

from node_lab import Archive

from bundle.prediction.batch import weights_digest
from bundle.prediction.predictor import Predictor
from bundle.serving.local_predictions import LocalPredictions
from bundle.serving.node import Node, Settings
from bundle.serving.targets import Peer


@pytest.fixture
def archive() -> Iterator[Archive]:
    peer = Archive()
    yield peer
    peer.stop()


@pytest.fixture(scope="session")
def predictions(tiny_models: Path) -> LocalPredictions:
    return LocalPredictions(Predictor.from_folder(tiny_models, "cpu"), weights_digest(tiny_models))


@pytest.fixture
def start_node(
    tmp_path: Path, archive: Archive, predictions: LocalPredictions, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Node]]:
    """Start a node; settings by name. Its queue is `tmp_path / "node"`, its peer the archive."""
    monkeypatch.setattr("bundle.serving.delivery.FIRST_WAIT", 0.05)
    nodes = []

    def start(**changes: Any) -> Node:
        peer = Peer("ARCHIVE", "127.0.0.1", archive.port, "BUS_NODE")
        settings = Settings(tmp_path / "node", "BUS_NODE", port=0, targets=(peer,), keep_free=0, quiet=None)
        node = Node(replace(settings, **changes), predictions)
        node.start()
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.stop()
