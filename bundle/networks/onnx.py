# SPDX-License-Identifier: Apache-2.0
"""A network in the ONNX form, which other engines read."""

from __future__ import annotations

import logging
import warnings

import torch


def to_onnx(network: torch.nn.Module, image: torch.Tensor, any_batch: bool = False) -> bytes:
    """Return a network as an ONNX file; needs the packages onnx and onnxscript.

    Args:
        network: on the CPU, in evaluation mode.
        image: (N, C, H, W) float, of the shape that the file will take.
        any_batch: it takes any N; `image` must then have one above 1.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of packages that are not needed here
    batch = ({0: torch.export.Dim("batch", min=1, max=1024)},) if any_batch else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about its own future
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            input_names=["image"],
            output_names=["logit"],
            dynamic_shapes=batch,
            verbose=False,
        )
    if program is None:  # never so with dynamo; its type says it could
        raise RuntimeError("the exporter returned no program")
    content: bytes = program.model_proto.SerializeToString()
    return content
