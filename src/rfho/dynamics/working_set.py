r"""Working sets: fit the features that a sparse penalty may keep, and see that none was missed.

Where L has a gradient and Ω is a weighted ℓ1 norm, w is a minimum if and only if

.. math:: |\partial_j L(w)| \le \lambda_j \quad \text{wherever } w_j = 0

and ∂_j L = -λ_j sign w_j elsewhere. So a minimum over some features, the others at 0, is one over all if the others
keep that bound, which one product with the data tells (Johnson and Guestrin, arXiv 1807.07831; Celer, 1802.07481).
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rfho.errors import positive_int


def working_set(
    slope: Float[Any, "*problems features"], room: int
) -> Int[np.ndarray, "*problems room"]:
    """The features whose slopes are largest, of each problem by itself.

    Those of the last minimum's support are among them if there is room: nothing exceeds their slopes there.

    Args:
        slope: ∂L, where the last minimum was found, or at w = 0; divided by the weights if these differ.
        room: how many to take, the same for all, so that nothing is compiled again. Twice the support or more:
            where even that does not fit, sets take turns and no one is enough.

    Raises:
        ValueError: there are not so many features.

    Cost:
        In NumPy on the host, in proportion to the features: a sort of part of them.

    Example:
        >>> import numpy as np, rfho
        >>> sorted(rfho.dynamics.working_set(np.array([0.1, -3.0, 2.0, 0.5]), room=2).tolist())
        [1, 2]
    """
    size = np.abs(np.asarray(slope))
    features = size.shape[-1]
    if positive_int(room, "room", "working_set") > features:
        raise ValueError(
            f"working_set got room={room}, but there are {features} features: fit them all"
        )
    return np.argpartition(-size, room - 1, axis=-1)[..., :room]


def left_out(
    slope: Float[Any, "*problems features"],
    rows: Int[Any, "*problems room"],
    weight: Any,
) -> float:
    """The largest slope outside of a working set, by size, in units of λ_j: up to 1, nothing was missed.

    Args:
        slope: ∂L at the minimum over ``rows``.
        rows: as `working_set` gives them.
        weight: λ, a scalar, or as ``slope``.

    Example:
        >>> import numpy as np, rfho
        >>> float(rfho.dynamics.left_out(np.array([0.1, -3.0, 2.0, 0.5]), np.array([1, 2]), 2.0))
        0.25
    """
    size = np.abs(np.asarray(slope)) / np.asarray(weight)
    np.put_along_axis(size, np.asarray(rows), 0, axis=-1)
    return float(size.max())
