# SPDX-License-Identifier: Apache-2.0
"""Networks in their ONNX form, kept in the user's cache folder: converting one takes seconds, reading it milliseconds.

A file is named after all that it depends on: the weights, the settings and the code of the network, the versions of the
converters. It holds its own sha256, and only one that belongs to this user, whole, is read; it is data, no code. Where
the folder cannot be written, networks are converted at each start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from bundle.errors import InputError
from bundle.files import write_atomically
from bundle.networks.onnx import to_onnx

FOLDER = "breast-ultrasound-bundle"
_DIGITS = 64
_CODE = Path(__file__).resolve().parents[1] / "networks"


def converted(network: torch.nn.Module, shape: Sequence[int]) -> bytes:
    """Return a network as an ONNX file, out of the cache where it is there, else converted and kept.

    Args:
        network: on the CPU, in evaluation mode.
        shape: (N, C, H, W) of what it will see.
    """
    return kept(f"{network_key(network, shape)}.onnx", lambda: to_onnx(network, torch.rand(*shape)))


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """Return a file's content out of the cache folder where it is there, whole; else it is made and kept.

    Args:
        name: of the file, which tells all that its content depends on.
        make: makes the content.
    """
    file = cache_folder() / name
    content = _recall(file)
    if content is None:
        content = make()
        with contextlib.suppress(InputError, OSError):  # a full or read-only disk: it is converted again next time
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(file, hashlib.sha256(content).hexdigest().encode() + content)
    return content


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME`` or ``~/.cache``, and in it the bundle's own folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / FOLDER


def _recall(file: Path) -> bytes | None:
    """What was kept; None where nothing of use was."""
    try:
        with open(file, "rb") as opened:
            if hasattr(os, "getuid") and os.fstat(opened.fileno()).st_uid != os.getuid():
                return None
            digest, content = opened.read(_DIGITS), opened.read()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest().encode() == digest else None


def network_key(network: torch.nn.Module, shape: Sequence[int]) -> str:
    """A sha256 of all that the ONNX form of a network depends on; the arguments are those of `converted`."""
    digest = hashlib.sha256(_code_digest().encode())
    settings = [
        (name, type(module).__name__, {key: value for key, value in vars(module).items() if _is_setting(value)})
        for name, module in network.named_modules()
    ]
    digest.update(json.dumps([list(shape), settings], sort_keys=True).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_setting(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(part, (bool, int, float, str)) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))


@functools.cache
def _code_digest() -> str:
    """Of the networks' code and of what converts them."""
    digest = hashlib.sha256(" ".join(version(name) for name in ("torch", "onnx", "onnxscript")).encode())
    for file in sorted(_CODE.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
