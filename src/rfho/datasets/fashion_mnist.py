"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, in the format of MNIST.

H. Xiao, K. Rasul, R. Vollgraf, arXiv 1708.07747. The four IDX files are looked for in the folder
``fashion_mnist``, and downloaded from the authors' repository (its README states the MD5 sums).
"""

from rfho.datasets.base import TrainTest
from rfho.datasets.idx import IdxFiles

CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

_FILES = IdxFiles(
    folder="fashion_mnist",
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    checksums={
        "train-images-idx3": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
    class_names=CLASS_NAMES,
    unpacked={},
)


def load_fashion_mnist() -> TrainTest:
    """Training and test part, images ``(n, 28, 28)`` in [0, 1].

    Raises:
        DataNotFoundError: a file is in no folder and cannot be downloaded.
        DataFormatError: a file is truncated or no IDX file.

    Example:
        >>> from rfho.datasets import load_fashion_mnist
        >>> train, test = load_fashion_mnist()  # doctest: +SKIP
    """
    return _FILES.load()
