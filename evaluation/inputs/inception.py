"""torch-fidelity's Inception: the TensorFlow network of 2015-12-05, converted, with its resizing."""

import urllib.error
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import file_sha256

INCEPTION_SHA256 = "6726825d"  # the beginning, as in the file's published name


class Inception(nn.Module):
    """torch-fidelity's inception-v3-compat: 2048-d pool features and 1008 unbiased logits."""

    name = "inception-v3-compat"
    warning: str | None = None  # about the weights, to print with the scores
    resize = "299x299 bilinear, as TensorFlow 1.x"

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would unpickle anything
            self.network = FeatureExtractorInceptionV3(self.name, ["2048", "logits_unbiased"], str(path))
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{path} does not hold the weights of torch-fidelity's Inception: {reason}") from error
        self.sha256 = file_sha256(path)
        if not self.sha256.startswith(INCEPTION_SHA256):
            self.warning = (
                f"the Inception weights are not the published ones (SHA-256 {self.sha256[:8]}..., not "
                f"{INCEPTION_SHA256}...): these scores cannot be compared with others"
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images.expand(-1, 3, -1, -1))


def inception_file(given: str | Path | None) -> Path:
    """Find Inception's weights, or download them into torch's cache. Raises UserError if neither is possible."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    if given is not None:
        if not Path(given).is_file():
            raise UserError(f"--inception_weights {given}: no such file")
        return Path(given)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=INCEPTION_SHA256)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"the Inception weights are not in {path} and cannot be downloaded ({error}). Download "
                f"{URL_INCEPTION_V3} by hand, put it there or name it with --inception_weights FILE; or score with "
                "--features classifier, which needs labels but no network; or train without scores: python train.py"
            ) from error
    return path
