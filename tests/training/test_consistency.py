# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.consistency."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

from bundle.data.prepare import ensure_prepared
from bundle.errors import UserError
from bundle.networks.weights import load_tensors
from bundle.training import Consistency
from bundle.training.consistency import agreement_loss

OVERLAY = "['configs/train.json', 'configs/semi_supervised.yaml']"


class _Bright(torch.nn.Module):
    """A teacher that takes bright pixels for lesion, with logits of ±10; grey ones get 0.5."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 20 * (image - 0.5)


def _images(count: int = 6) -> list[dict[str, torch.Tensor]]:
    return [{"image": torch.full((1, 8, 12), number / (count - 1))} for number in range(count)]


def _consistency(**settings: object) -> Consistency:
    given = {"warp": lambda image, mask: (image, mask), "strong": [], "batch_size": 16, "cutmix": 0.0, **settings}
    return Consistency(_images(), _Bright(), **given)  # type: ignore[arg-type]


def _draw(consistency: Consistency) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return consistency.draw(lambda image, network: network(image), torch.device("cpu"))[:3]


def test_the_teacher_sees_the_image_before_the_strong_changes() -> None:
    changed, target, sure = _draw(_consistency(strong=[lambda image: 1 - image], lesion_confidence=0.95))
    assert torch.equal(target, ((1 - changed) > 0.5).float())
    assert torch.equal(sure, (torch.sigmoid(20 * (0.5 - changed).abs()) >= 0.95).float())
    assert 0 < sure.mean() < 1


def test_lesion_and_background_have_confidences_of_their_own() -> None:
    changed, _, sure = _draw(_consistency(confidence=0.95, lesion_confidence=0.8))
    grey = changed[:, 0, 0, 0]  # 0, 0.2, 0.4 (lesion with 0.12), 0.6 (with 0.88), 0.8, 1
    assert {round(value, 1) for value in grey.tolist()} >= {0.4, 0.6}
    assert torch.equal(sure[:, 0, 0, 0].bool(), (grey - 0.4).abs() > 0.01)


def test_a_soft_teacher_gives_its_probability() -> None:
    changed, target, sure = _draw(_consistency(hard=False, confidence=0.5, lesion_confidence=0.5))
    assert torch.allclose(target, torch.sigmoid(20 * (changed - 0.5)))
    assert sure.all()


def test_cutmix_moves_image_target_and_sureness_together() -> None:
    changed, target, sure = _draw(_consistency(cutmix=1.0, lesion_confidence=0.95))
    mixed = [len(image.unique()) == 2 for image in changed]
    assert sum(mixed) > 8  # neighbours of one grey value can not be told apart
    assert torch.equal(target, (changed > 0.5).float())
    assert torch.equal(sure, (torch.sigmoid(20 * (changed - 0.5).abs()) >= 0.95).float())


def test_an_equal_seed_draws_the_same() -> None:
    first, second = _draw(_consistency(cutmix=0.5)), _draw(_consistency(cutmix=0.5))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_teachers_word_on_the_lesions_presence_is_taught_softly_and_in_a_channel_of_its_own() -> None:
    class Told(_Bright):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([super().forward(image), torch.full_like(image, 2.0)], dim=1)

    for hard in (False, True):
        consistency = _consistency(hard=hard, cutmix=1.0)
        consistency.teacher = Told()
        torch.manual_seed(0)
        _, target, sure, presence = consistency.draw(lambda image, network: network(image), torch.device("cpu"))
        assert target.shape == sure.shape == (16, 1, 8, 12)
        assert presence is None if hard else torch.allclose(presence, torch.tensor(2.0).sigmoid().expand(16))


def test_pixels_that_are_not_sure_change_neither_loss_nor_gradient() -> None:
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    sure = torch.zeros_like(logits)
    sure[0, 0, 0] = 1
    target = torch.ones_like(sure)
    loss = agreement_loss(logits, target, sure)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[sure == 0] == 0).all()
    assert (logits.grad[sure == 1] < 0).all()
    assert torch.equal(loss, agreement_loss(logits, target * sure, sure))
    assert agreement_loss(logits, target, torch.zeros_like(sure)) == 0


def test_without_unlabelled_images_it_says_what_to_give() -> None:
    with pytest.raises(UserError, match=r"15:5:80, fold 0 of 2"):
        Consistency([], _Bright(), lambda *both: both, [])  # type: ignore[arg-type]


def test_a_run_learns_from_unlabelled_images_and_never_opens_their_masks(
    small_phantom: Path, tmp_path: Path, run_bundle: Callable[..., CompletedProcess[str]]
) -> None:
    split = "30:15:55, fold 1 of 2"
    datalist = ensure_prepared(small_phantom, tmp_path / "prepared", split=split, seed=0)
    hidden = {record["image"]: Path(record["label"][0]) for record in datalist["unlabelled"]}
    tested = {record["image"] for record in datalist["test"]}
    assert hidden
    assert tested
    assert not tested & set(hidden)

    words = ["training", "--config_file", OVERLAY, "--dataset_dir", small_phantom, "--split", split]
    words += [
        "--prepared_dir",
        tmp_path / "prepared",
        "--architecture",
        "UNet",
        "--filters",
        "[4,8]",
        "--spatial_size",
        "[32,48]",
    ]
    words += ["--max_epochs", 2, "--batch_size", 2, "--val_interval", 1, "--confidence", "0.5"]
    ended = run_bundle(*words, "--output_dir", tmp_path / "run")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-6000:]
    alone = run_bundle(*words, "--consistency_weight", "0.0", "--output_dir", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr[-2000:]
    both = [load_tensors(tmp_path / name / "model.pt")["head.weight"] for name in ("run", "alone")]
    assert not torch.equal(*both)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["split"] == split
