"""MNIST: 60,000 + 10,000 handwritten digits of 28 x 28 pixels.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proc. IEEE 86(11), 1998. The four IDX files of the original distribution are looked
for in the folder ``mnist``, and downloaded from the mirror of the Common Visual Data Foundation.
"""

from rfho.datasets.base import TrainTest
from rfho.datasets.idx import IdxFiles

CLASS_NAMES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")

_FILES = IdxFiles(
    folder="mnist",
    url="https://storage.googleapis.com/cvdf-datasets/mnist",
    checksums={
        "train-images-idx3": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    class_names=CLASS_NAMES,
    unpacked={
        "train-images-idx3": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1": "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1": "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)


def load_mnist() -> TrainTest:
    """Training and test part, images ``(n, 28, 28)`` in [0, 1].

    Raises:
        DataNotFoundError: a file is in no folder and cannot be downloaded.
        DataFormatError: a file is truncated or no IDX file.

    Example:
        >>> from rfho.datasets import load_mnist
        >>> train, test = load_mnist()  # doctest: +SKIP
    """
    return _FILES.load()
