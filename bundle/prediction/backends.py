# SPDX-License-Identifier: Apache-2.0
"""Run a network by another engine than PyTorch: ONNX Runtime or OpenVINO, on the CPU.

A network is converted once, from weights whose sha256 was checked, and its ONNX form kept in the user's cache folder
(`bundle.prediction.converted`). Both engines read that form. OpenVINO is imported without the package by which it
reports to Google Analytics that it was imported, and each conversion by its own converter.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bundle.errors import UserError
from bundle.prediction.converted import converted

MAX_WORKERS = 8
"""Images whose networks are computed at once, at most: what is Python in it, an eighth or so, is done for one at a
time."""

TORCH, AUTO = "torch", "auto"
FLOAT32, BFLOAT16, INT8 = PRECISIONS = ("float32", "bfloat16", "int8")
_Run = Callable[[np.ndarray], np.ndarray]


class EngineNetwork(torch.nn.Module):
    """A network that another engine computes; it has no parameters and no gradients. Several threads may call it.

    Args:
        run: computes it.
        backend: what does, of `BACKENDS`.
        shape: (C, H, W) of every image that it will see.

    Shape:
        input (1, C, H, W) float on the CPU; output as the network's, float32.
    """

    def __init__(self, run: _Run, backend: str, shape: Sequence[int]) -> None:
        super().__init__()
        self.backend, self._run = backend, run
        self._run(np.zeros((1, *shape), np.float32))  # what cannot run fails here, not at the first image

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._run(np.ascontiguousarray(image.numpy(), np.float32)))


class BackendNetwork(EngineNetwork):
    """A network of PyTorch in another engine.

    Args:
        network: on the CPU; converted in evaluation mode.
        shape: (C, H, W) of every image that it will see.
        backend: of `BACKENDS`, but not ``torch``.
        amp: bfloat16 inside; ONNX Runtime has none for CPUs and stays with float32.

    Raises:
        UserError: a package that the backend needs is not installed.
    """

    def __init__(self, network: torch.nn.Module, shape: tuple[int, ...], backend: str, amp: bool) -> None:
        require_backend(backend)
        plain = network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        super().__init__(_ENGINES[backend][0](converted(plain, (1, *shape)), amp), backend, shape)


def require_backend(backend: str) -> None:
    """Refuse a backend that this environment cannot run.

    Raises:
        UserError: there is none of this name, or a package that it needs is not installed.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend '{backend}': choose one of {', '.join(BACKENDS)}")
    for package in _ENGINES[backend][1] if backend != TORCH else ():
        # Looked for, not imported: what converts takes seconds to import, and a network is converted once.
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"backend '{backend}' needs {package}; pip install -r requirements-backends.txt, or use {TORCH}"
            )


def require_int8(backend: str) -> None:
    """Refuse a backend that cannot compute in 8 bits here.

    Raises:
        UserError: it is not OpenVINO, or a package that it needs is not installed.
    """
    if backend not in (AUTO, "openvino"):
        raise UserError(f"precision 'int8' is OpenVINO's alone, not the backend {backend}'s; use {AUTO} or openvino")
    for package in (*_ENGINES["openvino"][1], *QUANTISED):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"precision 'int8' needs {package}; pip install -r requirements-backends.txt, or use another precision"
            )


def fastest_first(on_cpu: bool, explain: bool) -> tuple[str, ...]:
    """The backends that `AUTO` tries, one after the other: those that are installed, PyTorch last.

    Args:
        on_cpu: the networks run on the CPU; on a GPU PyTorch alone does.
        explain: PyTorch alone has the gradients for it.
    """
    if not on_cpu or explain:
        return (TORCH,)
    found = []
    for backend in ("openvino", "onnxruntime"):
        with contextlib.suppress(UserError):
            require_backend(backend)
            found.append(backend)
    return (*found, TORCH)


def images_at_once() -> int:
    """For how many images a CPU computes networks at once: as many as torch has threads, up to `MAX_WORKERS`."""
    return min(torch.get_num_threads(), MAX_WORKERS)


def images_at_work(backend: str) -> int:
    """How many images are in work at once: as many, or with OpenVINO, whose networks are computed by threads of its own
    and wait for them, twice as many, so that those threads do not wait while an image is in Python."""
    return images_at_once() * (2 if backend == "openvino" else 1)


def _onnxruntime(model: bytes, amp: bool) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads() // images_at_once()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(image: np.ndarray) -> np.ndarray:
        (logit,) = session.run(None, {"image": image})
        return np.asarray(logit)

    return run


@functools.cache
def _openvino_core() -> Any:
    """The one core of the process. Each sets the stack that signal handlers run on and puts the former one back when it
    goes; two that go in the order they came leave a stack that is gone, and the next signal, such as Ctrl-C, kills."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino

    return openvino.Core()


def open_openvino(model: bytes, amp: bool, weights: bytes | None = None) -> _Run:
    """Return what computes a model, ONNX, or OpenVINO's own form with its weights."""
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if amp else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": images_at_once(),  # each on threads of its own: images do not wait for each other
    }
    core = _openvino_core()
    compiled = core.compile_model(core.read_model(model, weights), "CPU", settings)
    requests = threading.local()  # one request serves one thread at a time

    def run(image: np.ndarray) -> np.ndarray:
        if not hasattr(requests, "mine"):
            requests.mine = compiled.create_infer_request()
        return np.array(requests.mine.infer([image], share_inputs=True)[0])

    return run


_ENGINES: dict[str, tuple[Callable[[bytes, bool], _Run], tuple[str, ...]]] = {
    "onnxruntime": (_onnxruntime, ("onnx", "onnxscript", "onnxruntime")),
    "openvino": (open_openvino, ("onnx", "onnxscript", "openvino")),
}
"""What opens each engine, and the packages that it needs."""
BACKENDS = (AUTO, TORCH, *_ENGINES)
QUANTISED = ("openvino", "nncf")
"""What 8 bits need besides."""
