"""Ways to solve a linear system of which only products are known."""

from rfho.solvers.base import AbstractSolver, Assumptions, Operator, Solve
from rfho.solvers.conjugate_gradients import CG, NormalEquations
from rfho.solvers.krylov import GMRES, BiCGStab
from rfho.solvers.nystrom import Nystrom
from rfho.solvers.series import Neumann, OneStep

__all__ = [
    "CG",
    "GMRES",
    "AbstractSolver",
    "Assumptions",
    "BiCGStab",
    "Neumann",
    "NormalEquations",
    "Nystrom",
    "OneStep",
    "Operator",
    "Solve",
]
