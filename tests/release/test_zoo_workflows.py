# SPDX-License-Identifier: Apache-2.0
"""A test in the shape that MONAI's model zoo asks of its bundles: unittest, `check_workflow`, from another folder.

python -m unittest tests/test_zoo_workflows.py
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"max_epochs": 1, "filters": [4, 8], "spatial_size": [48, 64], "batch_size": 4, "split": "50:25:25"}


def check_workflow(workflow: ConfigWorkflow, check_properties: bool = False) -> None:
    """Do with a workflow what the zoo's own helper does."""
    workflow.initialize()
    if check_properties and workflow.check_properties():
        raise ValueError(f"properties are missing: {workflow.check_properties()}")
    workflow.run()
    workflow.finalize()


class TestBundle(unittest.TestCase):
    def setUp(self) -> None:
        if str(ROOT) not in sys.path:  # as the zoo does, since properties are asked for before the run
            sys.path.insert(0, str(ROOT))
        from bundle.data.phantom import make_phantom

        self.before = os.getcwd()
        self.folder = tempfile.mkdtemp()
        os.chdir(self.folder)
        counts = {"benign": 8, "malignant": 6, "normal": 2}
        make_phantom("data", counts=counts, size_range=((60, 70), (80, 90)))

    def tearDown(self) -> None:
        os.chdir(self.before)
        shutil.rmtree(self.folder)

    def workflow(self, name: str, kind: str, **override: Any) -> ConfigWorkflow:
        return ConfigWorkflow(
            workflow_type=kind,
            config_file=str(ROOT / "configs" / f"{name}.json"),
            meta_file=str(ROOT / "configs" / "metadata.json"),
            logging_file=str(ROOT / "configs" / "logging.conf"),
            bundle_root=str(ROOT),
            dataset_dir="data",
            **override,
        )

    def test_train_then_evaluate(self) -> None:
        given = {"prepared_dir": "prepared", "output_dir": "run"}
        check_workflow(self.workflow("train", "train", **given, **SMALL), check_properties=True)
        check_workflow(self.workflow("evaluate", "infer", **given), check_properties=True)
        assert Path("run/evaluation/metrics.json").is_file()

    def test_inference_with_the_shipped_weights(self) -> None:
        check_workflow(self.workflow("inference", "infer", output_dir="masks"), check_properties=True)
        check_workflow(self.workflow("inference_pipeline", "infer", output_dir="findings"), check_properties=True)
        assert Path("findings/findings.json").is_file()


if __name__ == "__main__":
    unittest.main()
