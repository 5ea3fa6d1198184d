# SPDX-License-Identifier: Apache-2.0
"""Claims about configs/metadata.json.

The schema that it names is a file that `verify_metadata` downloads; MONAI ships no copy. What MONAI's bundle
specification demands is written down here as a schema, and MONAI's own command runs against it. NOT checked: rules that
the real file (meta_schema_20240725.json) may hold beyond the specification.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import monai.bundle.scripts
import pytest

from bundle import __version__
from bundle.errors import InputError
from bundle.files import write_json
from bundle.reports.metadata import read_pins, render_metadata

TENSOR = {
    "type": "object",
    "required": [
        *("type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"),
    ],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {"enum": ["magnitude", "raw", "labels", "classes", "segmentation"]},
        "modality": {"type": "string"},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "minItems": 1, "items": {"type": ["integer", "string"]}},
        "dtype": {"enum": ["float32"]},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
DATA_FORMAT = {"type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": TENSORS}}
DATA_FORMAT["properties"] = {"inputs": TENSORS, "outputs": TENSORS}
TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": TEXT}
REQUIRED = {
    **{f"{name}_version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"} for name in ("monai", "pytorch", "numpy")},
    **{name: TEXT for name in ("version", "task", "description", "authors", "copyright")},
    "required_packages_version": TEXTS,  # optional_packages_version before MONAI 1.3
    "network_data_format": DATA_FORMAT,
}
OPTIONAL = {
    **{name: TEXT for name in ("intended_use", "data_source", "data_type", "name", "schema")},
    "changelog": TEXTS,
    "references": {"type": "array", "items": TEXT},
    "eval_metrics": {"type": "object", "additionalProperties": {"type": "number"}},
    "classifier_data_format": DATA_FORMAT,
}
SCHEMA = {"type": "object", "required": list(REQUIRED), "properties": {**REQUIRED, **OPTIONAL}}


@pytest.fixture
def metadata(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return content


def _verify(content: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run MONAI's verify_metadata with the schema above in place of the download; returns the address it asked for."""
    asked = []

    def download(url: str, filepath: str, **_: Any) -> None:
        asked.append(url)
        Path(filepath).write_text(json.dumps(SCHEMA))

    monkeypatch.setattr(monai.bundle.scripts, "download_url", download)
    (folder / "metadata.json").write_text(json.dumps(content))
    monai.bundle.verify_metadata(str(folder / "metadata.json"), filepath=str(folder / "schema.json"))
    return asked[0]


def test_monai_verifies_the_metadata(metadata: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _verify(metadata, tmp_path, monkeypatch).endswith("/meta_schema_20240725.json")


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_metadata_without_a_required_key_are_refused(
    key: str, metadata: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del metadata[key]
    with pytest.raises(ValueError, match=f"'{key}' is a required property"):
        _verify(metadata, tmp_path, monkeypatch)


def test_every_requirement_is_pinned_in_the_metadata_and_nothing_else(metadata: dict[str, Any], root: Path) -> None:
    pinned = dict(metadata["required_packages_version"])
    pinned |= {"torch": metadata["pytorch_version"], "monai": metadata["monai_version"]}
    pinned |= {"numpy": metadata["numpy_version"]}
    lines = [line.partition("#")[0].strip() for line in (root / "requirements.txt").read_text().splitlines()]
    assert sorted(f"{name}=={version}" for name, version in pinned.items()) == sorted(filter(None, lines))


def test_name_version_and_changelog_are_the_products(metadata: dict[str, Any], root: Path) -> None:
    assert metadata["name"] == "breast_ultrasound_segmentation_classification"
    assert metadata["version"] == __version__
    released = re.findall(r"^## \[([\d.]+)\]", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert list(metadata["changelog"]) == released
    assert "Not a medical device" in metadata["intended_use"]


def test_scores_are_those_recorded_of_the_shipped_weights_with_their_intervals(
    metadata: dict[str, Any], root: Path
) -> None:
    scores, sources = metadata["eval_metrics"], metadata["eval_metrics_source"]
    for stage, weights in (("segmentation", "model"), ("classification", "model_classifier")):
        record = json.loads((root / sources[stage]).read_text())
        card = json.loads((root / "models" / f"{weights}.json").read_text())
        # Of these very weights; or of their recipe, where they have seen all images themselves.
        assert (
            record["weights"].get("sha256") == card["sha256"] or card["cross_validated_by"] == Path(sources[stage]).stem
        )
        score = record["lesions"]["dice"] if stage == "segmentation" else record["auroc"]
        name = "mean_dice" if stage == "segmentation" else "classifier_auroc"
        for part, suffix in (("estimate", ""), ("low", "_low"), ("high", "_high")):
            assert scores[name + suffix] == pytest.approx(score[part], abs=5e-5)


def test_weights_without_a_record_have_no_scores(root: Path) -> None:
    content = json.loads(render_metadata(root, None, None))
    assert content["eval_metrics"] == content["eval_metrics_source"] == {}


def test_generated_parts_change_and_the_rest_keeps_its_layout(root: Path, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    before = (root / "configs" / "metadata.json").read_text()
    (tmp_path / "configs" / "metadata.json").write_text(before)
    requirements = (root / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(requirements.replace("fire==", "fire==9") + "\nhighdicom==0.0.1\n")
    after = render_metadata(tmp_path, None, None)
    assert json.loads(after)["required_packages_version"]["highdicom"] == "0.0.1"
    assert json.loads(after)["required_packages_version"]["fire"].startswith("9")
    assert re.search(r'"spatial_shape": \[\d+, \d+\]', after)
    write_json(tmp_path / "models/model.json", {"presence": True, "spatial_size": [192, 160], "context": 0})
    described = json.loads(render_metadata(tmp_path, None, None))["network_data_format"]
    assert described["inputs"]["image"]["spatial_shape"] == [192, 160]
    assert (described["outputs"]["pred"]["num_channels"], described["inputs"]["image"]["num_channels"]) == (2, 1)
    (tmp_path / "configs" / "metadata.json").write_text(before.replace('"eval_metrics"', '"metrics"'))
    with pytest.raises(InputError, match="has eval_metrics 0 times"):
        render_metadata(tmp_path, None, None)


@pytest.mark.parametrize("line", ["monai", "monai>=1.6", "monai==", "monai==1.6.1; python_version > '3'"])
def test_a_requirement_without_one_version_is_refused_by_name(line: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(f"# comment\ntorch==2.13.0  # why\n{line}\n")
    with pytest.raises(InputError, match="pins no version"):
        read_pins(tmp_path / "requirements.txt")
