# SPDX-License-Identifier: Apache-2.0
"""Every command of README and docs is one that exists, and those of each page run in their order, as written.

Placeholders become small synthetic data, and trainings one epoch of tiny networks; nothing else is changed. The blocks
of docs/integrations.md have a test of their own.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import warm
from PIL import Image

from bundle.config.check import check_file
from bundle.config.typed import typed_overrides

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("README", "datasets", "inputs", "outputs", "scaling"))]
OTHER_PAGES = [
    "docs/reliability.md",
    "docs/monai_label.md",
    "docs/evidence.md",
    "docs/security.md",
    "docs/recalibration.md",
    "docs/pacs.md",
    "docs/cines.md",
]
TINY = {
    # An overlay's own settings first: the smallest network of each architecture.
    "lite_segmentation.yaml": ["--max_epochs", "1", "--spatial_size", "[32,32]", "--width", "0.25"],
    "train.json": ["--max_epochs", "1", "--spatial_size", "[32,32]", "--architecture", "UNet", "--filters", "[4,8]"],
    "train_classifier.json": [
        *("--max_epochs", "1", "--spatial_size", "[32,32]"),
        *("--architecture", "SegNet", "--filters", "[4,8,8,8]"),
    ],
    "reproduce.py": [
        *("--folds", "2", "--jobs", "2", "--members", "1", "--max_epochs", "1"),
        *("--segmentation", "filters=[4,8]", "spatial_size=[32,32]"),
        *("--classification", "filters=[4,8,8,8]", "spatial_size=[32,32]"),
    ],
    "benchmark.py": [],
}
NOT_RUN = {
    "benchmark.py": "minutes of measurement; tests/benchmarks",
    "-m venv": "an environment of its own; tests/benchmarks",
    "push_to_hub.py": "needs huggingface_hub; docs/integrations.md",
    "--engine ray": "needs Ray; tests/prediction",
    "--nodes": "needs several machines",
    "torchrun": "several processes; tests/training",
    "--processes": "several processes; tests/training",
    "html pdf": "needs WeasyPrint; tests/outputs",
    "--backend": "needs OpenVINO; tests/prediction",
    "recalibrate.py": "needs 30 images of a class; tests/prediction",
    "fit_left_out.py": "needs a training without each hospital; tests/training",
    "unmarked": "of the run of several datasets; tests/configs",
}
LONG = ("reproduce.py", "export.py", "leak_audit.py", "evaluate_external.py", "audit_data.py")


def commands_of(page: str) -> list[list[str]]:
    """The words of each command in the blocks of a page, without comments; lines that end in a backslash are joined."""
    found = []
    text = re.sub(r"\\\n\s*", "", (ROOT / page).read_text(encoding="utf-8"))
    text = re.sub(r"('[^'\n]*',)\n\s*('[^'\n]*'\]\")", r"\1 \2", text)  # a quoted list over two lines of prose
    for line in text.splitlines():
        match = re.match(r"(?: {4}|)((?:python|torchrun|make) [^`]+)$", line)
        if match and not line.startswith("python -c"):
            found.append(shlex.split(match[1], comments=True))
    return found


def _configs(words: list[str]) -> list[Path]:
    """The configs of a command, in the order in which they are merged."""
    if "--config_file" in words:
        given = words[words.index("--config_file") + 1]
        names = ast.literal_eval(given) if given.startswith("[") else [given]
    else:
        names = [word for word in words if word.endswith((".json", ".yaml")) and word.startswith("configs/")]
    return [ROOT / name for name in names]


def _script(words: list[str]) -> str | None:
    return next((word for word in words[:2] if word.startswith("scripts/")), None)


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_every_documented_command_has_its_file_and_its_options(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands_of(page):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
            continue
        script = _script(words)
        if script is not None and script not in ("scripts/run.py", "scripts/train.py"):
            kind = [word for word in words[2:3] if script == "scripts/benchmark.py"]
            with pytest.raises(SystemExit):
                importlib.import_module(script.removesuffix(".py").replace("/", ".")).main([*kind, "--help"])
            told = capsys.readouterr().out
            assert all(word.split("=")[0] in told for word in words if word.startswith("--")), words
        if any(word.startswith("tests/") for word in words):
            assert (ROOT / next(word for word in words if word.startswith("tests/"))).is_file(), words


@pytest.mark.parametrize("page", PAGES)
def test_every_documented_override_is_an_id_of_its_config(page: str) -> None:
    checked = set()
    for words in commands_of(page):
        configs = _configs(words)
        names = {name for name in typed_overrides(words) if name not in ("config_file", "nproc_per_node", "m")}
        names -= {"processes", "nodes", "rendezvous", "max_restarts"}
        key = (tuple(configs), tuple(sorted(names)))
        if configs and key not in checked:
            checked.add(key)
            faults = check_file(configs[-1], configs[:-1], dict.fromkeys(names, "x"), instantiate=False)
            assert not [fault for fault in faults if fault.where in names], (words, faults)


class Place:
    """A copy of the bundle to run commands in, with small data for every placeholder of the pages."""

    def __init__(self, folder: Path, phantom: Path) -> None:
        self.folder = folder / "bundle_copy"
        for name in ("bundle", "configs", "scripts", "models"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__", "versions"))
        (self.folder / "docs").mkdir()
        data, images = folder / "Dataset_BUSI_with_GT", folder / "images"
        shutil.copytree(phantom, data)
        (data / "synthetic.json").unlink(missing_ok=True)
        images.mkdir()
        for number in (1, 2):
            shutil.copy(phantom / "benign" / f"benign ({number}).png", images)
        self._make_bus_bra(self.folder / "BUSBRA")
        (self.folder / "BUSI").symlink_to(data)
        self._make_archive(folder / "archive", phantom)
        (folder / "files.txt").write_text("\n".join(str(path) for path in sorted(images.iterdir())))
        (folder / "archive.csv").write_text("image\n" + "\n".join(str(path) for path in sorted(images.iterdir())))
        run = self.folder / "runs" / f"segmentation_{data.name}" / "evaluation"
        self.out = folder / "out"
        self.data = data
        self.values = {
            **dict.fromkeys(("/path/to/Dataset_BUSI_with_GT", "/path/to/dataset", "DATASET", "…"), data),
            **dict.fromkeys(("/path/to/folder/of/images", "IMAGES", "IMAGES_OR_FOLDERS…", "scans", "cine.dcm"), images),
            **{"DIR": self.folder / "BUSBRA", "/archive": folder / "archive"},
            **{"files.txt": folder / "files.txt", "archive.csv": folder / "archive.csv"},
            **dict.fromkeys(("ONE/per_image.csv", "OTHER/per_image.csv"), run / "per_image.csv"),
        }

    @staticmethod
    def _make_bus_bra(folder: Path) -> None:
        rows, folds = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"], ["ID,Pathology,kFold"]
        y, x = np.mgrid[-1:1:48j, -1:1:64j]
        for number in range(1, 21):
            noise = np.random.default_rng(number).integers(40, 200, (48, 64))
            lesion = (y**2 + x**2) < 0.1 + 0.01 * number
            for kind, pixels in (("Images/bus", np.where(lesion, noise // 4, noise)), ("Masks/mask", lesion * 255)):
                path = folder / f"{kind}_{number:04d}-s.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
            label = "Benign" if number % 2 else "Malignant"
            rows.append(f'bus_{number:04d}-s,{number},x,{label},3,GE,64,48,left,"[1,1,2,2]"')
            folds.append(f"bus_{number:04d}-s,{label},{1 + (number - 1) // 4}")
        (folder / "bus_data.csv").write_text("\n".join(rows))
        (folder / "5-fold-cv.csv").write_text("\n".join(folds))

    @staticmethod
    def _make_archive(folder: Path, phantom: Path) -> None:
        rows = ["image,mask,label,patient"]
        for label in ("benign", "malignant"):
            for number in range(1, 9):
                for ending in ("", "_mask"):
                    name = f"{label}/{label} ({number}){ending}.png"
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(phantom / name, folder / name)
                rows.append(
                    f"{label}/{label} ({number}).png,{label}/{label} ({number})_mask.png,{label},{label}{number}"
                )
        (folder / "manifest.csv").write_text("\n".join(rows))

    def fill(self, words: list[str]) -> list[str]:
        """A command with paths for placeholders, and the words that make it small."""
        small = next((TINY[name] for name in TINY if any(Path(word).name == name for word in self._named(words))), [])
        filled = [str(self.values.get(word, word)) for word in words]
        for place, word in enumerate(filled):
            if word == "OUT":
                filled[place] = str(self.out / "_".join(Path(each).stem for each in words[1:3]))
        return [*filled, *small]

    @staticmethod
    def _named(words: list[str]) -> list[str]:
        return [*(path.name for path in _configs(words)), *words[:2]]

    def run(self, words: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": ""}
        done = warm.run([sys.executable, *self.fill(words)[1:]], self.folder, environment)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def _wanted(page: str, long: bool) -> list[list[str]]:
    """The commands of a page that can be run here, those that take long or the others."""
    chosen = []
    for words in commands_of(page):
        text = shlex.join(words).replace("'", "")
        runs = words[0] == "python" and "tests/" not in text and not any(known in text for known in NOT_RUN)
        if runs and (long or not any(name in text for name in LONG)):
            chosen.append(words)
    return chosen


def test_the_commands_of_the_readme_run_in_their_order(tmp_path: Path, small_phantom: Path) -> None:
    place, commands = Place(tmp_path, small_phantom), _wanted("README.md", long=False)
    assert len(commands) >= 9
    for words in commands:
        place.run(words)
    own = place.folder / "runs"
    assert (own / f"classification_{place.data.name}" / "evaluation" / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_their_order(page: str, tmp_path: Path, small_phantom: Path) -> None:
    place = Place(tmp_path, small_phantom)
    for words in _wanted(page, long=True):
        place.run(words)
