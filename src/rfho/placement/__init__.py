"""Problems over many devices: which part of data, parameters and members lies where on a mesh."""

from rfho.placement.parallel import data_parallel, fsdp

__all__ = ["data_parallel", "fsdp"]
