"""Problems over many devices: which part of data, parameters and members lies where on a mesh."""

from rfho.placement.members import Members
from rfho.placement.parallel import data_parallel, fsdp

__all__ = ["Members", "data_parallel", "fsdp"]
