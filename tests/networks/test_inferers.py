# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.autocast and bundle.networks.inferers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bundle.errors import UserError
from bundle.networks import UNet, autocast
from bundle.networks.autocast import as_flag, has_fast_bfloat16
from bundle.networks.inferers import AutocastInferer


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(filters=(4, 8)).eval()


IMAGE = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "mps", "meta", torch.device("cpu")])
def test_asking_for_fast_bfloat16_never_raises(device: torch.device | str) -> None:
    assert has_fast_bfloat16(device) in (True, False)


@pytest.mark.parametrize(
    ("flags", "fast"), [("avx2 avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx2 avx512f", False)]
)
def test_a_processor_is_judged_by_its_instructions(
    flags: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(autocast, "Path", lambda _: tmp_path / "cpuinfo")
    assert has_fast_bfloat16("cpu") is fast


def test_a_system_that_does_not_tell_its_instructions_is_slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(autocast, "Path", lambda _: tmp_path / "absent")
    assert has_fast_bfloat16("cpu") is False


@torch.no_grad()
def test_without_amp_and_flip_it_is_the_network(network: UNet) -> None:
    assert torch.equal(AutocastInferer(amp=False)(IMAGE, network), network(IMAGE))


@torch.no_grad()
@pytest.mark.parametrize("amp", [False, True])
def test_flip_averages_the_image_and_its_mirror_image(network: UNet, amp: bool) -> None:
    plain, flipped = AutocastInferer(amp=amp), AutocastInferer(amp=amp, flip=True)
    expected = (plain(IMAGE, network) + plain(IMAGE.flip(-1), network).flip(-1)) / 2
    torch.testing.assert_close(flipped(IMAGE, network), expected)
    assert not torch.allclose(flipped(IMAGE, network), plain(IMAGE, network))


@torch.no_grad()
def test_flip_makes_the_result_of_a_mirrored_image_the_mirrored_result(network: UNet) -> None:
    inferer = AutocastInferer(amp=False, flip=True)
    torch.testing.assert_close(inferer(IMAGE.flip(-1), network), inferer(IMAGE, network).flip(-1))


@torch.no_grad()
def test_bfloat16_returns_float32_logits_close_to_plain_ones(network: UNet) -> None:
    logits, plain = AutocastInferer(amp=True)(IMAGE, network), network(IMAGE)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, plain)
    assert (logits - plain).abs().max() < 0.05 * plain.abs().max()


def test_gradients_pass_through_autocast(network: UNet) -> None:
    image = IMAGE.clone().requires_grad_()
    AutocastInferer(amp=True)(image, network).sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


def test_further_arguments_reach_the_network() -> None:
    def scale(image: torch.Tensor, gain: float, offset: float = 0.0) -> torch.Tensor:
        return gain * image + offset

    torch.testing.assert_close(AutocastInferer(amp=False)(IMAGE, scale, 2.0, offset=1.0), 2 * IMAGE + 1)


@pytest.mark.parametrize(("given", "meant"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_a_flag_may_come_as_text_from_a_command_line(given: bool | str, meant: bool) -> None:
    assert as_flag("amp", given) is meant
    assert AutocastInferer(amp=given).amp is meant


def test_a_flag_that_is_neither_true_nor_false_is_named() -> None:
    with pytest.raises(UserError, match="flip: 'perhaps' must be true or false"):
        AutocastInferer(flip="perhaps")
