"""The resource reduction schedule of NetAdapt: how much each iteration has to take away.

Iteration i must bring the price to R(i-1) - step * decay^(i-1), much as a learning rate decays (Yang et al., 2018); each resource
has such a schedule of its own, in fractions of its own initial price. The sum of such a series is bounded: a schedule that cannot
get to the budget is found out here, before anything is trained.
"""

from __future__ import annotations

import math

from netadapt.errors import BudgetError


def reduction(iteration: int, initial: float, step: float, decay: float) -> float:
    """What iteration 1, 2, … has to take away at least, in the resource's unit; `step` is a fraction of the initial price."""
    return initial * step * decay ** (iteration - 1)


def planned_fraction(iterations: int, step: float, decay: float) -> float:
    """What so many iterations take away together, as a fraction of the initial price."""
    return step * _series(iterations, decay)


def _series(iterations: int, decay: float) -> float:
    """1 + decay + decay² + …; by expm1, as the usual formula loses its digits where the decay is close to 1."""
    return float(iterations) if decay == 1 else -math.expm1(iterations * math.log(decay)) / (1 - decay)


def smallest_step(fraction: float, decay: float, iterations: int) -> float:
    """The step that takes away this fraction of the initial price in exactly so many iterations."""
    return fraction / _series(iterations, decay)


def iterations_needed(fraction: float, step: float, decay: float) -> int | None:
    """How many iterations take away this fraction; None if no number does."""
    if decay == 1:
        return math.ceil(fraction / step)
    share = fraction * (1 - decay) / step  # of all that this schedule could ever take away
    return math.ceil(math.log1p(-share) / math.log(decay)) if share < 1 else None


def check_reachable(
    initial: float, budget: float, step: float, decay: float, max_iterations: int, what: str = "the budget"
) -> None:
    """`BudgetError` with the arithmetic if the schedule ends above the budget; `step` is a fraction of the initial price.

    `what` names the budget in that sentence. One that is met already asks for nothing.

    An iteration may take away more than it has to, as widths come in steps; that is luck and not counted on.
    """
    wanted = 1 - budget / initial
    planned = planned_fraction(max_iterations, step, decay)
    if planned >= wanted * (1 - 1e-9):  # the budget is met when it is reached up to rounding
        return
    enough = math.ceil(smallest_step(wanted, decay, max_iterations) * 1000) / 1000
    more = iterations_needed(wanted, step, decay)
    raise BudgetError(
        f"these settings take away {100 * planned:.1f} % in {max_iterations} iterations; {what} asks for {100 * wanted:.1f} %: "
        f"raise --step to at least {enough:.3f}" + (f", or --max-iterations to at least {more}" if more is not None else "")
    )
