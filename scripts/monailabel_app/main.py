# SPDX-License-Identifier: Apache-2.0
"""The MONAI Label app of this bundle: lesion masks with a class and its probability, training, active learning.

    monailabel start_server --app scripts/monailabel_app --studies /path/to/images

The bundle is the folder two levels above this file; `--conf bundle /path/to/bundle` names another one;
`--conf site /path/to/site.json` takes an institution's own calibration, and `--conf models models/paper` the weights of
the paper's networks. Research software, not a medical device.
docs/monai_label.md says how to work with it.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import torch
from dicomweb_client.session_utils import create_session_from_user_pass
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def _refuse(reason: str) -> NoReturn:
    """End the server with one line; it would make a traceback of any exception, SystemExit included."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(2)


try:
    import torchvision  # noqa: F401, which MONAI Label needs
except (ImportError, RuntimeError, OSError) as error:
    _refuse(
        f"torchvision does not fit torch {torch.__version__} ({str(error).splitlines()[0]}); install the build of both "
        "from one index, as https://pytorch.org says for this machine"
    )

from lib.active_learning import MostUncertain, ScoreAgreement, ScoreUncertainty  # noqa: E402
from lib.archive import UltrasoundArchive  # noqa: E402
from lib.infer import FindLesion  # noqa: E402
from lib.train import ClassificationTrainer, SegmentationTrainer  # noqa: E402

from bundle import __version__  # noqa: E402
from bundle.errors import InputError, UserError  # noqa: E402

logger = logging.getLogger(__name__)


class BreastUltrasoundApp(MONAILabelApp):
    """One model that answers with mask and class, a trainer per stage, and strategies that ask for the doubtful images.

    Args:
        app_dir: this folder; the server writes `logs`, `model` and `bin` into it.
        studies: a folder of images, or the address of a DICOMweb server.
        conf: `bundle`, the bundle's folder where this app does not lie in it; `site`, a site.json for its weights;
            `models`, another set of weights than those of its ``models``, which are what is trained: so none is then.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundle_root = Path(conf.get("bundle", ROOT)).resolve()
        self.trained = self.bundle_root / "models"
        models = self.bundle_root / conf.get("models", "models")
        self.lesion = FindLesion(models, Path(conf["site"]).resolve() if conf.get("site") else None)
        if "models" in conf and not self.lesion.is_valid():
            _refuse(
                f"--conf models {conf['models']}: no such weights; models/paper names models/paper_model.pt and so on"
            )
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Breast ultrasound",
            description="Lesion segmentation and benign/malignant classification. Research software, no medical device",
            version=__version__,
            labels={"lesion": 1},
        )

    def _init_dicomweb_datastore(self) -> Datastore:
        """An archive whose segmentations by models are no labels, see `lib.archive`."""
        session = None
        if settings.MONAI_LABEL_DICOMWEB_USERNAME and settings.MONAI_LABEL_DICOMWEB_PASSWORD:
            session = create_session_from_user_pass(
                settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
            )
        client = DICOMwebClientX(
            url=self.studies,
            session=session,
            qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
            wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
            stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
        )
        return UltrasoundArchive(
            client=client,
            search_filter=settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
            cache_path=(settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or "").strip() or None,
            fetch_by_frame=settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """The model: mask, class and probability in one answer."""
        return {"breast_ultrasound": self.lesion}

    def init_trainers(self) -> dict[str, TrainTask]:
        """One trainer per stage: of submitted masks, and of diagnoses; none where other weights than theirs answer."""
        if self.lesion.models != self.trained:
            return {}
        return {
            "segmentation": SegmentationTrainer(str(self.bundle_root), self.conf),
            "classification": ClassificationTrainer(str(self.bundle_root), self.conf, self.lesion),
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """Which image comes next: any, the first, or the one that the networks are least sure of."""
        return {
            "random": Random(),
            "first": First(),
            "uncertain_outline": MostUncertain("outline_entropy", self.lesion, "the lesion's outline"),
            "uncertain_class": MostUncertain("class_entropy", self.lesion, "benign or malignant"),
        }

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """What the strategies need, and how well the model agrees with what was submitted."""
        return {"uncertainty": ScoreUncertainty(self.lesion), "agreement": ScoreAgreement(self.lesion)}

    def infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Answer one request; a client's mistake becomes one line, not a bare "Internal Server Error".

        Raises:
            HTTPException: 404 for an unknown model or image, 422 for a file that cannot be used.
        """
        self._require("model", request.get("model"), self._infers)
        image = request.get("image")
        if isinstance(image, str) and not _is_uploaded(image):
            known = (datastore or self.datastore()).list_images()
            self._require("image", image, known, "GET /datastore/?output=all lists them")
        try:
            return super().infer(request, datastore)
        except InputError as error:
            name = "uploaded file" if _is_uploaded(str(image)) else image
            raise HTTPException(422, f"{name}: {error.reason}; {error.mend}") from error
        except UserError as error:
            raise HTTPException(422, str(error)) from error

    def batch_infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Answer for many images; one that cannot be used is named in its place, and the others are done.

        It runs on one device unless there are several GPUs: MONAI Label divides by their number.
        """
        several = torch.cuda.device_count() > 1 and request.get("multi_gpu", True)
        return self._batch_infer({**request, "multi_gpu": several}, datastore or self.datastore(), self._infer_or_skip)

    def _infer_or_skip(self, request: dict[str, Any], datastore: Any) -> Any:
        try:
            return self.infer(request, datastore)
        except HTTPException as error:
            logger.warning("skipped: %s", error.detail)
            return {"error": error.detail}

    def train(self, request: dict[str, Any]) -> Any:
        """Train one of the stages.

        Raises:
            HTTPException: 404 for an unknown trainer, 422 for labels that cannot be trained on.
        """
        self._require("trainer", request.get("model"), self._trainers)
        try:
            return super().train(request)
        except UserError as error:
            raise HTTPException(422, str(error)) from error

    def next_sample(self, request: dict[str, Any]) -> Any:
        """Choose the next image to label.

        Raises:
            HTTPException: 404 for an unknown strategy.
        """
        self._require("strategy", request.get("strategy") or "random", self._strategies)
        return super().next_sample(request)

    @staticmethod
    def _require(what: str, name: Any, known: Any, mend: str = "") -> None:
        if name not in known:
            raise HTTPException(404, f"{what} '{name}' is unknown; {mend or 'known are ' + ', '.join(known)}")


def _is_uploaded(image: str) -> bool:
    """Whether the path is that of a file sent with the request, which the server puts into the temporary folder."""
    return os.path.isfile(image) and Path(image).resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())
