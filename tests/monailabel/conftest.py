# SPDX-License-Identifier: Apache-2.0
"""Real MONAI Label servers on the loopback interface, each with its own copy of the bundle and its own studies."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from label_server import Server, write_dicom
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STOCK_MODEL = "breast_ultrasound_segmentation_classification"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs MONAI Label's own environment."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.monailabel)


@pytest.fixture(scope="session", autouse=True)
def threads_of_the_server() -> Iterator[None]:
    """One thread, as `Server` has: instance norm sums in another order on more, which bfloat16 shows."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def copy_bundle() -> Callable[[Path], Path]:
    """Copy what the bundle needs to run: trainings publish into it."""

    def copy(folder: Path) -> Path:
        left_out = shutil.ignore_patterns("__pycache__", "versions", "logs")
        for name in ("bundle", "configs", "models", "scripts"):
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        return folder

    return copy


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images that are wider than high, and their masks."""
    from bundle.data.phantom import make_phantom

    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, counts={"benign": 5, "malignant": 5}, size_range=((80, 100), (130, 160)))
    return folder


@pytest.fixture
def mask_of(phantom: Path) -> Callable[[str], Path]:
    """Name the true mask of an image of the studies, ``benign1`` or ``malignant3``."""
    return lambda image: phantom / image[:-1] / f"{image[:-1]} ({image[-1]})_mask.png"


@pytest.fixture(scope="session")
def make_studies(phantom: Path) -> Callable[[Path], Path]:
    """Fill a folder with PNG images, and with one JPEG, NIfTI and single-frame DICOM file each."""

    def make(folder: Path) -> Path:
        import nibabel

        folder.mkdir(parents=True)
        for label in ("benign", "malignant"):
            for number in range(1, 5):
                shutil.copy(phantom / label / f"{label} ({number}).png", folder / f"{label}{number}.png")
        picture = Image.open(phantom / "benign" / "benign (5).png")
        picture.save(folder / "photo.jpg", quality=95)
        pixels = np.asarray(picture)
        turned = np.array([[0.0, -0.2, 0, 3], [-0.1, 0, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]])
        nibabel.save(nibabel.Nifti1Image(pixels.T[..., None], turned), folder / "volume.nii.gz")
        write_dicom(pixels, folder / "frame.dcm")
        return folder

    return make


@pytest.fixture(scope="session")
def environment() -> None:
    """Skip where MONAI Label is not installed."""
    # Not "monailabel": this folder of tests would be found by that name.
    pytest.importorskip("monailabel.config", reason="MONAI Label has an environment of its own: make test-monailabel")


@pytest.fixture(scope="module")
def own(
    environment: None,
    tmp_path_factory: pytest.TempPathFactory,
    copy_bundle: Callable[[Path], Path],
    make_studies: Callable[[Path], Path],
) -> Iterator[tuple[Server, Path, Path]]:
    """The bundle's own app: server, root of the copied bundle, studies."""
    folder = tmp_path_factory.mktemp("own")
    root, studies = copy_bundle(folder / "bundle"), make_studies(folder / "studies")
    server = Server(root / "scripts" / "monailabel_app", studies, folder, {})
    yield server, root, studies
    server.stop()


@pytest.fixture(scope="module")
def stock(
    environment: None,
    tmp_path_factory: pytest.TempPathFactory,
    copy_bundle: Callable[[Path], Path],
    make_studies: Callable[[Path], Path],
) -> Iterator[tuple[Server, Path, Path]]:
    """MONAI Label's own app `monaibundle` with the bundle in its model folder: server, root of the bundle, studies."""
    folder = tmp_path_factory.mktemp("stock")
    # What `monailabel apps --download` does.
    shutil.copytree(Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle", folder / "monaibundle")
    root, studies = copy_bundle(folder / "bundle"), make_studies(folder / "studies")
    (folder / "monaibundle" / "model").mkdir(exist_ok=True)
    (folder / "monaibundle" / "model" / STOCK_MODEL).symlink_to(root)
    conf = {"models": STOCK_MODEL, "zoo_source": "local", "sam2": "false"}
    conf |= {"epistemic_model": STOCK_MODEL, "epistemic_simulation_size": "2", "epistemic_max_samples": "2"}
    server = Server(folder / "monaibundle", studies, folder, conf)
    yield server, root, studies
    server.stop()
