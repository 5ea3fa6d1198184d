# SPDX-License-Identifier: Apache-2.0
"""A script: quantise every ONNX file of a folder by what the NumPy file beside it holds, into OpenVINO's form.

It runs in a process of its own, see `bundle.prediction.quantised`, and imports nothing of this bundle.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

_CONVOLUTIONS = ("Convolution", "GroupConvolution")


def main(folder: Path) -> None:
    """Write NAME.xml and NAME.bin beside each NAME.onnx; NAME.npy is (N, C, H, W) float32."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # neither of both reports its use
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    core = openvino.Core()
    for file in sorted(folder.glob("*.onnx")):
        model = core.read_model(file)
        inputs = np.load(file.with_suffix(".npy"), allow_pickle=False)
        small = nncf.quantize(
            model,
            nncf.Dataset([image[None] for image in inputs]),
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=[*before_convolutions(model), *after_layers(model)]),
        )
        openvino.save_model(small, file.with_suffix(".xml"), compress_to_fp16=False)


def before_convolutions(model: Any) -> list[str]:
    """The names of the operations between the input and the first convolutions: the image's standardisation."""
    found: dict[str, None] = {}
    waiting = list(model.get_parameters())
    while waiting:
        for output in waiting.pop().outputs():
            for target in output.get_target_inputs():
                node = target.get_node()
                name = node.get_friendly_name()
                if name not in found and node.get_type_name() not in (*_CONVOLUTIONS, "Result"):
                    found[name] = None
                    waiting.append(node)
    return list(found)


def after_layers(model: Any) -> list[str]:
    """The names of the operations between the last layers and the output: a mean of odds does not fit 256 levels."""
    found: dict[str, None] = {}
    waiting = list(model.get_results())
    while waiting:
        for value in waiting.pop().input_values():
            node = value.get_node()
            name = node.get_friendly_name()
            if name not in found and node.get_type_name() not in (*_CONVOLUTIONS, "MatMul", "Constant", "Parameter"):
                found[name] = None
                waiting.append(node)
    return list(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
