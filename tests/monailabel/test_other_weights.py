# SPDX-License-Identifier: Apache-2.0
"""Claims about the bundle's own MONAI Label app with another set of weights, against the real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_server import Server
from PIL import Image

from bundle.prediction import Predictor
from bundle.release.ship import keep_former

Make = Callable[[Path], Path]


@pytest.fixture(scope="module")
def former(environment: None, tmp_path_factory: pytest.TempPathFactory, copy_bundle: Make) -> Path:
    """A bundle whose only weights are a set of their own, as shipping others leaves them."""
    root = copy_bundle(tmp_path_factory.mktemp("former") / "bundle")
    keep_former(root / "models", "former")
    return root


def test_a_set_of_other_weights_answers_and_is_not_trained(former: Path, make_studies: Make, tmp_path: Path) -> None:
    studies = make_studies(tmp_path / "studies")
    server = Server(former / "scripts" / "monailabel_app", studies, tmp_path, {"models": "models/former"})
    try:
        assert server.call("GET", "/info/").json()["trainers"] == {}
        mask = np.asarray(Image.open(server.mask("breast_ultrasound", "benign1", tmp_path))) > 0
    finally:
        server.stop()
    expected = Predictor.from_folder(former / "models" / "former", "cpu").predict(studies / "benign1.png").mask
    assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) >= 0.99


def test_a_set_that_is_not_there_ends_the_server_with_one_line(
    former: Path, make_studies: Make, tmp_path: Path
) -> None:
    studies = make_studies(tmp_path / "studies")
    with pytest.raises(AssertionError, match="--conf models models/none: no such weights"):
        Server(former / "scripts" / "monailabel_app", studies, tmp_path, {"models": "models/none"})
    assert "Traceback" not in (tmp_path / "server.log").read_text()
