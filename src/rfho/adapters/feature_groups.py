"""Which feature belongs to which group: by labels, by names, by the parts of a ColumnTransformer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int


class FeatureGroups(NamedTuple):
    """The groups of a table's columns.

    Attributes:
        names: of the groups, in the order of their first column.
        of_column: the number of the group of each column.
    """

    names: list[Any]
    of_column: Int[np.ndarray, " features"]


def feature_groups(groups: Any, columns: Sequence[str] | None, count: int) -> FeatureGroups:
    """What a user says about groups, for a table of ``count`` columns.

    Args:
        groups: None, for a group of its own for every column; a label for each column; a mapping from names of
            groups to lists of columns, by name or number; ``"prefix"``, for what stands before ``__`` in the
            columns' names, as a ColumnTransformer or FeatureUnion writes them; or a fitted ColumnTransformer.
        columns: the columns' names, where the table has any.
        count: of the columns.

    Raises:
        ValueError: a column is in no group or in two, or does not exist.

    Example:
        >>> from rfho.adapters.feature_groups import feature_groups
        >>> feature_groups({"size": [0, 2], "place": [1]}, None, 3)
        FeatureGroups(names=['size', 'place'], of_column=array([0, 1, 0]))
    """
    if groups is None:
        return FeatureGroups(_names(columns, count), np.arange(count))
    if isinstance(groups, str):
        return _labelled(_prefixes(groups, columns), count)
    if hasattr(groups, "output_indices_"):
        return _mapped(_parts(groups), columns, count)
    if isinstance(groups, Mapping):
        return _mapped(groups, columns, count)
    return _labelled(list(groups), count)


def _names(columns: Sequence[str] | None, count: int) -> list[Any]:
    return list(range(count)) if columns is None else list(columns)


def _prefixes(groups: str, columns: Sequence[str] | None) -> list[str]:
    if groups != "prefix":
        raise ValueError(
            f'groups is {groups!r}, but the only word for it is "prefix": give a label for each column, or a '
            "mapping from names to lists of columns"
        )
    if columns is None:
        raise ValueError(
            'groups="prefix" needs a table whose columns have names: call set_output(transform="pandas") on '
            "the ColumnTransformer, or pass it itself as groups"
        )
    return [column.partition("__")[0] for column in columns]


def _parts(transformer: Any) -> dict[Any, list[int]]:
    """The columns that each step of a ColumnTransformer puts out."""
    parts = transformer.output_indices_
    return {name: list(range(part.start, part.stop)) for name, part in parts.items() if part.stop}


def _labelled(labels: list[Any], count: int) -> FeatureGroups:
    if len(labels) != count:
        raise ValueError(
            f"groups has {len(labels)} labels, but the table has {count} columns: give one for each"
        )
    names = list(dict.fromkeys(labels))
    place = {name: i for i, name in enumerate(names)}
    return FeatureGroups(names, np.array([place[label] for label in labels], int))


def _mapped(groups: Mapping[Any, Any], columns: Sequence[str] | None, count: int) -> FeatureGroups:
    numbers = {name: i for i, name in enumerate(_names(columns, count))}
    index = np.full(count, -1)
    for i, (name, members) in enumerate(groups.items()):
        for member in [members] if isinstance(members, str) else members:
            column = numbers.get(member, member)
            if not isinstance(column, int | np.integer) or not -1 < column < count:
                raise ValueError(
                    f"groups[{name!r}] names {member!r}, which is no column of the table"
                )
            if index[column] >= 0:
                raise ValueError(f"column {member!r} is in two groups, one of them {name!r}")
            index[column] = i
    if (index < 0).any():
        lost = _names(columns, count)[int(np.argmin(index))]
        raise ValueError(
            f"column {lost!r} is in no group: put what is left over into a group of its own"
        )
    return FeatureGroups(list(groups), index)
