# SPDX-License-Identifier: Apache-2.0
"""Weights as they are shipped: a flat state dict, and a card beside it that says what it is and where it comes from.

``model.pt`` is what every MONAI tool loads; ``model.json`` holds its sha256, the network's settings, the operating
threshold and the provenance, so that evaluation and inference need no setting repeated.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bundle.errors import InputError, UserError
from bundle.files import read_json, sha256_of, write_atomically, write_json
from bundle.networks.site_file import apply_site_to_segmenter

if TYPE_CHECKING:
    from ignite.engine import Engine

logger = logging.getLogger(__name__)

SEGMENTER, SMALL_SEGMENTER, CLASSIFIER = "model.pt", "model_small.pt", "model_classifier.pt"  # in models/

_OWN_MODELS = Path(__file__).resolve().parents[2] / "models"
_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64


def save_atomically(obj: Any, path: str | os.PathLike[str], seal: bool = False) -> None:
    """``torch.save`` to a temporary name, flush to the disk, rename: the path holds the old or the new, never half.

    Args:
        obj: tensors and plain values.
        path: the file.
        seal: write the sha256 into the file, which `load_tensors` then compares. ``torch.save`` makes a ZIP archive,
            and an archive may end with a comment: every other reader ignores it.
    """
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    if seal:
        comment = _SEAL + hashlib.sha256(buffer.getbuffer()).hexdigest().encode()
        buffer.seek(-2, io.SEEK_END)  # the length of the comment, 0 so far, is the archive's last field
        buffer.write(len(comment).to_bytes(2, "little") + comment)
    write_atomically(path, buffer.getbuffer())


def load_tensors(path: str | os.PathLike[str], device: torch.device | str = "cpu", sealed: bool = False) -> Any:
    """``torch.load`` without executing anything from the file.

    Args:
        path: the file.
        device: where the tensors go.
        sealed: refuse a file without the sha256 of its content; where there is one, it is always compared.

    Raises:
        UserError: the file is missing, truncated, altered, or holds more than tensors and plain values.
    """
    try:
        content = Path(path).read_bytes()
        seal = content[-_SEAL_LENGTH:]
        if seal.startswith(_SEAL):
            digest = hashlib.sha256(memoryview(content)[: -_SEAL_LENGTH - 2])
            digest.update(bytes(2))
            if digest.hexdigest().encode() != seal.removeprefix(_SEAL):
                raise ValueError("its sha256 is not the one written into it")
        elif sealed:
            raise ValueError("it lacks the sha256 that its writer puts in")
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such checkpoint; train first, name another output_dir, or from another folder give "
            "--bundle_root"
        ) from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}); restore it or delete it and train again"
        ) from None


def flat_state_dict(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict as contiguous CPU tensors without DDP's or compile's prefixes: what every MONAI tool loads."""
    prefixes = ("module.", "_orig_mod.")
    flat = {}
    for key, value in network.state_dict().items():
        while key.startswith(prefixes):
            key = key.split(".", 1)[1]
        flat[key] = value.detach().cpu().contiguous().clone()
    return flat


def card_path(weights: str | os.PathLike[str]) -> Path:
    """Where the card of a weights file lies: same name, suffix ``.json``."""
    return Path(weights).with_suffix(".json")


def write_weights(weights: str | os.PathLike[str], state: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> None:
    """Write a flat state dict and its card, each atomically, the card last."""
    save_atomically(dict(state), weights)
    write_json(card_path(weights), {"sha256": sha256_of(weights), **card})


def read_card(weights: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the card beside a weights file; an empty dict where there is none.

    Raises:
        UserError: the card is not readable JSON.
    """
    path = card_path(weights)
    card: dict[str, Any] = read_json(path, "restore it beside its weights") if path.exists() else {}
    # Before there was a choice, cards said nothing of instance norm and of the architecture.
    if "context" in card:
        card = {"instance_norm": False, "architecture": "UNet", **card}
    elif "decoder" in card:
        card = {"architecture": "SegNet", **card}
    return card


def weights_file(models: str | os.PathLike[str], name: str) -> Path:
    """The weights file of a name, such as `SEGMENTER`, in a folder of models, or of a set of several in one folder.

    Args:
        models: the folder; or the folder and the name of a set in it: ``models/paper`` is ``paper_model.pt`` and
            its fellows in ``models``.
        name: of the file.
    """
    folder = Path(models)
    of_set = folder.with_name(f"{folder.name}_{name}")
    return of_set if of_set.is_file() and not folder.is_dir() else folder / name


def none_below(card: Mapping[str, Any]) -> float:
    """The probability of a lesion below which a segmenter's card tells of none; 0 where its network does not tell."""
    return float(card.get("presence_points", {}).get("none_below", 0.0))


def doubtful_presence(card: Mapping[str, Any]) -> float:
    """The probability of a lesion below which an outline is doubtful: the limit by the training's own hospitals, where
    the card has a lower one that holds in others, see `bundle.training.left_out_presence`; else 0."""
    return float(card.get("presence_points", {}).get("on_validation", {}).get("none_below", 0.0))


def require_card(weights: str | os.PathLike[str], keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read the card beside a weights file, which must be there and hold the keys.

    Raises:
        UserError: the weights are missing, or their card is, cannot be read, or is of another kind of network.
    """
    card = read_card(weights)
    if not card and not Path(weights).exists():
        raise InputError(weights, "no such weights", "name a file of weights, or a folder of models that holds it")
    if not card:
        raise UserError(f"{weights}: no card ({card_path(weights).name}) beside it; restore both files")
    missing = [key for key in keys if key not in card]
    if missing:
        raise UserError(
            f"{card_path(weights)}: the card of another network (it lacks {', '.join(missing)}); "
            "name the weights and the card of the right one"
        )
    return card


def recorded_settings(
    weights: str | os.PathLike[str], defaults: Mapping[str, Any], site: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Take the settings named in ``defaults`` from the card of a weights file; defaults where the card lacks them.

    Configs use it so that a network trained with other filters is evaluated with these filters. Where no such weights
    are, the card of the bundle's own of that name tells: ``monai.bundle.load`` builds the network of a config in
    whatever folder it is called, and then gives it the weights of the bundle's. What a ``site.json`` fitted for this
    segmenter stands in place of its card, see `bundle.networks.site_file`.
    """
    path = Path(weights)
    card = read_card(path if path.exists() or card_path(path).exists() else _OWN_MODELS / path.name)
    card = card if site is None else apply_site_to_segmenter(site, card)
    return {name: card.get(name, value) for name, value in defaults.items()}


def load_weights(
    network: torch.nn.Module, weights: str | os.PathLike[str], allow_unverified: bool = False
) -> dict[str, Any]:
    """Load a weights file into a network, strictly, after its sha256 was compared with its card.

    Args:
        network: gets the weights.
        weights: the file.
        allow_unverified: load a file that is not the one of its card all the same; the card that is returned then has
            the file's own sha256, and ``unverified``. Nothing of a file is executed either way.

    Returns:
        the card, empty if there is none.

    Raises:
        UserError: the file is missing or damaged, differs from its card, or belongs to another network.
    """
    card = read_card(weights)
    if card and Path(weights).exists() and card.get("sha256") != (found := sha256_of(weights)):
        if not allow_unverified:
            raise UserError(
                f"{weights}: its sha256 is not the one in {card_path(weights).name}; restore both files from one source"
            )
        logger.warning("%s is not the file that its card describes; it is used because that was allowed", weights)
        card = {**card, "sha256": found, "unverified": True}
    state = load_tensors(weights)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"{weights}: weights of another network ({lines[min(1, len(lines) - 1)][:160]}); "
            "use the settings that they were trained with"
        ) from None
    return card


class LoadWeights:
    """Handler that loads a weights file when an evaluator starts.

    Args:
        network: gets the weights.
        weights: path of the flat state dict.
    """

    def __init__(self, network: torch.nn.Module, weights: str | os.PathLike[str]) -> None:
        self.network = network
        self.weights = weights

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        from ignite.engine import Events  # whoever predicts has no engine

        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_weights(self.network, self.weights)


def publish(weights: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy weights and card to where MONAI's tools look, keeping the files that were there as a version.

    The former ones move to ``versions/`` in the target's folder, named by the first digits of their sha256, out of
    reach of tools that take any ``*.pt`` beside ``model.pt``.
    """
    target = Path(target)
    digest = sha256_of(target) if target.exists() else None
    if digest is not None and digest != sha256_of(weights):
        kept = target.parent / "versions" / f"{target.stem}-{digest[:8]}{target.suffix}"
        write_atomically(kept, target.read_bytes())
        if card_path(target).exists():
            write_atomically(card_path(kept), card_path(target).read_bytes())
        logger.info("The former weights are kept as %s", kept)
    write_atomically(target, Path(weights).read_bytes())
    if card_path(weights).exists():
        write_atomically(card_path(target), card_path(weights).read_bytes())
    else:
        # A card of the former weights would make the new ones look damaged.
        card_path(target).unlink(missing_ok=True)
    logger.info("Published %s as %s", weights, target)
