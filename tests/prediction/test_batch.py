# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.batch and the records that it keeps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bundle.prediction.batch
from bundle.errors import UserError
from bundle.finding import Finding
from bundle.outputs.records import Written
from bundle.prediction import Predictor
from bundle.prediction.batch import Batch, weights_digest
from bundle.prediction.inputs import FrameChoice, list_inputs
from bundle.prediction.outcome import Outcome, Summary
from bundle.readers import UltrasoundImage
from bundle.transforms.shape import measure_lesion
from tests.readers.fabricate import save, ultrasound

OUTPUTS = ("png", "overlay", "nifti", "json", "csv", "html")


@pytest.fixture
def images(small_phantom: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 3):
        Image.open(small_phantom / "benign" / f"benign ({number}).png").save(folder / f"b{number}.png")
    return folder


class QuickPredictor:
    """Takes the left half of an image for its lesion: what a batch does with findings needs no network."""

    classifier = SimpleNamespace(explain=None)
    computed_by = MappingProxyType({"backend": "none", "precision": "float32", "flip": True})
    concurrent = True
    backend = "none"

    def predict(self, image: UltrasoundImage) -> Finding:
        mask = np.zeros(image.pixels.shape, bool)
        mask[:, : mask.shape[1] // 2] = True
        probability = float(image.pixels.mean()) / 255
        return Finding(
            **{"image": "array", "size": mask.shape, "box": (0, 0, *mask.shape), "other_boxes": ()},
            **{
                "lesion": measure_lesion(mask),
                "lesion_state": "found",
                "outline_confidence": 1.0,
                "warnings": image.warnings,
            },
            **{"probability": probability, "probability_raw": probability, "frame": image.frame, "mask": mask},
            **{"decisions": {"probability 0.5": {"threshold": 0.5, "decision": "benign"}}},
            **{"models": {"segmenter": "a" * 64, "classifier": "b" * 64}},
            probability_map=mask.astype(np.uint8) * 255,
        )


@pytest.fixture(scope="module")
def predictor() -> Any:
    return QuickPredictor()


def _run(predictor: Any, models: str, folder: Path, output: Path, **more: Any) -> tuple[list[Outcome], Summary]:
    options: dict[str, Any] = {"outputs": OUTPUTS, **more}
    batch, summary = Batch(predictor, models, output=output, **options), Summary()
    outcomes = []
    for outcome in batch.run(list_inputs([folder], (), output)[0]):
        outcomes.append(outcome)
        summary.add(outcome)
    summary.finish(output, options["outputs"])
    return outcomes, summary


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_rerun_redoes_nothing_and_says_the_same(predictor: Any, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, _ = _run(predictor, "m", images, out)
    before = _snapshot(out)
    again, summary = _run(predictor, "m", images, out)
    after = _snapshot(out)
    assert [outcome.resumed for outcome in again] == [True] * 3
    assert summary.resumed == 3
    assert [outcome.finding for outcome in again] == json.loads(json.dumps([outcome.finding for outcome in first]))
    assert before.keys() == after.keys()
    for name in before:
        assert before[name][1] == after[name][1], name
        if "/" in name:
            assert before[name][0] == after[name][0], name


@pytest.mark.parametrize("change", ["bytes", "models", "version", "output gone", "record cut", "again", "more outputs"])
def test_a_case_is_redone_when_what_it_depends_on_changes(
    change: str, predictor: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _run(predictor, "m", images, out, outputs=("png", "json"))
    models, more = "m", {"outputs": ("png", "json")}
    if change == "bytes":
        pixels = np.asarray(Image.open(images / "b2.png")).copy()
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(images / "b2.png")
    elif change == "models":
        models = "other"
    elif change == "version":
        monkeypatch.setattr(bundle.prediction.batch, "__version__", "9.9.9")
    elif change == "output gone":
        (out / "masks" / "b2.png").unlink()
    elif change == "record cut":
        record = out / ".cases" / "b2.png.json"
        record.write_bytes(record.read_bytes()[:100])
    elif change == "again":
        more["again"] = True  # type: ignore[assignment]
    else:
        more["outputs"] = ("png", "overlay", "json")
    outcomes, _ = _run(predictor, models, images, out, **more)
    only_second = change in ("bytes", "output gone", "record cut")
    assert [outcome.resumed for outcome in outcomes] == ([True, False, True] if only_second else [False] * 3)
    assert (out / "masks" / "b2.png").is_file()


def test_fewer_outputs_need_nothing_new(predictor: Any, images: Path, tmp_path: Path) -> None:
    _run(predictor, "m", images, tmp_path / "out")
    outcomes, _ = _run(predictor, "m", images, tmp_path / "out", outputs=("png",))
    assert all(outcome.resumed for outcome in outcomes)


def test_an_interruption_keeps_what_is_done(predictor: Any, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = Batch(predictor, "m", output=out, outputs=OUTPUTS).run(list_inputs([images], (), out)[0])
    next(run)
    with pytest.raises(KeyboardInterrupt):
        run.throw(KeyboardInterrupt)
    assert (out / ".cases" / "b1.png.json").is_file()  # and of the others those that a writer was at
    outcomes, _ = _run(predictor, "m", images, out)
    assert outcomes[0].resumed
    assert all(outcome.finding is not None for outcome in outcomes)


def test_the_digest_of_the_models_follows_weights_and_cards(tiny_models: Path, tmp_path: Path) -> None:
    for path in tiny_models.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    digest = weights_digest(tmp_path)
    assert digest == weights_digest(tiny_models)
    card = tmp_path / "model_classifier.json"
    card.write_text(card.read_text().replace('"temperature": 2.0', '"temperature": 2.5'))
    assert weights_digest(tmp_path) != digest


def test_the_small_segmenter_is_another_model(tiny_models: Path, tmp_path: Path) -> None:
    for path in tiny_models.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"model_small\.pt"):
        Predictor.from_folder(tmp_path, small=True)
    for suffix in (".pt", ".json"):
        shutil.copy(tmp_path / f"model{suffix}", tmp_path / f"model_small{suffix}")
    card = json.loads((tmp_path / "model_small.json").read_text())
    (tmp_path / "model_small.json").write_text(json.dumps({**card, "threshold": 0.25}))
    assert weights_digest(tmp_path, small=True) != weights_digest(tmp_path)
    assert Predictor.from_folder(tmp_path, small=True).classifier.segmenter_card["threshold"] == 0.25
    assert Predictor.from_folder(tmp_path).classifier.segmenter_card["threshold"] == 0.5


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    frames = list(np.random.default_rng(0).integers(0, 255, (25, 50, 70), np.uint8))
    return save(ultrasound(frames), tmp_path / "cines" / "sub" / "cine.dcm").parents[1]


def test_a_cine_whose_syntax_is_not_read_is_skipped_once(predictor: Any, cine: Path, tmp_path: Path) -> None:
    file = cine / "sub" / "cine.dcm"
    file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    outcomes, summary = _run(predictor, "m", cine, tmp_path / "out", outputs=("json",))
    assert [skipped["path"] for skipped in summary.skipped] == ["sub/cine.dcm"]
    assert "is not read" in str(outcomes[0].error)


def test_frames_of_a_cine_are_findings_and_the_most_suspicious_is_named(
    predictor: Any, cine: Path, tmp_path: Path
) -> None:
    _run(predictor, "m", cine, tmp_path / "out", outputs=("png", "json"), frames=FrameChoice(every=10))
    content = json.loads((tmp_path / "out" / "findings.json").read_text())
    names = [f"sub/cine.dcm.frame{number}.png" for number in (0, 10, 20)]
    assert [finding["image"] for finding in content["findings"]] == names
    assert [finding["frame"] for finding in content["findings"]] == [0, 10, 20]
    assert all((tmp_path / "out" / "masks" / name).is_file() for name in names)
    (summary,) = content["cines"]
    best = max(content["findings"], key=lambda finding: finding["probability"])
    assert (summary["file"], summary["frames"], summary["looked_at"]) == ("sub/cine.dcm", 25, 3)
    assert summary["most_suspicious"] == {key: best[key] for key in ("image", "frame", "probability", "lesion_state")}


def test_a_frame_that_is_missing_is_an_error_of_its_file_alone(
    predictor: Any, cine: Path, images: Path, tmp_path: Path
) -> None:
    for path in images.iterdir():
        (cine / path.name).write_bytes(path.read_bytes())
    outcomes, summary = _run(predictor, "m", cine, tmp_path / "out", outputs=("json",), frames=FrameChoice(frame=99))
    assert sum(outcome.finding is not None for outcome in outcomes) == 3
    assert [bad["path"] for bad in summary.skipped] == ["sub/cine.dcm"]


def test_no_extra_and_no_dicom_writer_is_imported_before_it_is_wanted(root: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['highdicom', 'weasyprint', 'nibabel', 'ray', 'pyarrow', 'pandas']))\n"
        "import bundle.prediction.archive, bundle.prediction.batch, bundle.outputs"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]


def test_a_case_does_not_wait_until_the_one_before_is_written(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=10)

    def write(_: Finding, __: UltrasoundImage, ___: str, name: Path, *____: Any) -> Written:
        if name.name != "b3.png":
            both.wait()  # broken unless two are written at once
        return Written((), ())

    monkeypatch.setattr(bundle.prediction.batch, "write_case", write)
    outcomes, _ = _run(QuickPredictor(), "m", images, tmp_path / "out", outputs=("png",))
    assert [outcome.name for outcome in outcomes] == ["b1.png", "b2.png", "b3.png"]
