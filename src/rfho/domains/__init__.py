"""Sets that hyperparameters live in: a projection, and for some a chart."""

from rfho.domains.base import AbstractDomain as AbstractDomain
from rfho.domains.box import Box as Box
from rfho.domains.box import UnitInterval as UnitInterval
from rfho.domains.capped_l1 import CappedL1 as CappedL1
from rfho.domains.convex_set import ConvexSet as ConvexSet
from rfho.domains.domain_tree import domain_tree as domain_tree
from rfho.domains.fixed import Fixed as Fixed
from rfho.domains.log_box import LogBox as LogBox
from rfho.domains.non_negative import NonNegative as NonNegative
from rfho.domains.positive import Positive as Positive
from rfho.domains.reals import Reals as Reals
from rfho.domains.scaled import Scaled as Scaled
from rfho.domains.simplex import Simplex as Simplex
from rfho.domains.space import Space as Space
from rfho.domains.symmetric_non_negative import SymmetricNonNegative as SymmetricNonNegative
