# SPDX-License-Identifier: Apache-2.0
"""For test machines where only torchvision's CUDA build can be had beside a CPU build of torch: let it be imported.

Its compiled operators are not there; MONAI Label imports torchvision and calls none of them. The product needs nothing
of this: where both packages come from one index they fit.
"""

import torch

_LIBRARY = torch.library.Library("torchvision", "DEF")
_LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
