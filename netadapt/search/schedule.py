"""The resource reduction schedule of NetAdapt (Yang et al., 2018): the reduction of each iteration.

Iteration i has to bring the price R(i-1) down to R(i-1) - step * decay^(i-1), with the step as a fraction of the initial price.
Each resource has such a schedule of its own. The sum of all reductions is bounded where the decay is below 1, so a schedule that
cannot reach its budget is refused here, before anything is trained.
"""

from __future__ import annotations

import math

from netadapt.errors import BudgetError


def reduction(iteration: int, initial: float, step: float, decay: float) -> float:
    """The least reduction of an iteration, counted from 1, in the resource's unit; `step` is a fraction of the initial price."""
    return initial * step * decay ** (iteration - 1)


def planned_fraction(iterations: int, step: float, decay: float) -> float:
    """The total reduction of so many iterations, as a fraction of the initial price."""
    return step * _series(iterations, decay)


def _series(iterations: int, decay: float) -> float:
    """The sum 1 + decay + decay² + … of so many terms; by expm1, as (1 - decay^n) loses digits where the decay is close to 1."""
    return float(iterations) if decay == 1 else -math.expm1(iterations * math.log(decay)) / (1 - decay)


def smallest_step(fraction: float, decay: float, iterations: int) -> float:
    """The step whose total reduction in exactly so many iterations is this fraction of the initial price."""
    return fraction / _series(iterations, decay)


def iterations_needed(fraction: float, step: float, decay: float) -> int | None:
    """The number of iterations whose total reduction is this fraction of the initial price; None if no number is enough."""
    if decay == 1:
        return math.ceil(fraction / step)
    share = fraction * (1 - decay) / step  # of the total reduction of infinitely many iterations
    return math.ceil(math.log1p(-share) / math.log(decay)) if share < 1 else None


def check_reachable(
    initial: float, budget: float, step: float, decay: float, max_iterations: int, what: str = "the budget"
) -> None:
    """`BudgetError` with settings that would do, if the schedule ends above the budget.

    `initial` and `budget` are in the resource's unit, `step` is a fraction of `initial`, and `what` names the budget in the error.
    An iteration may reduce the price by more than it has to, as widths come in steps; the check does not count on that.
    """
    wanted = 1 - budget / initial
    planned = planned_fraction(max_iterations, step, decay)
    if planned >= wanted * (1 - 1e-9):  # the budget is met when it is reached up to rounding
        return
    enough = math.ceil(smallest_step(wanted, decay, max_iterations) * 1000) / 1000
    more = iterations_needed(wanted, step, decay)
    raise BudgetError(
        f"these settings reduce the price by {100 * planned:.1f} % in {max_iterations} iterations, {what} asks for "
        f"{100 * wanted:.1f} %; raise --step to at least {enough:.3f}"
        + (f", or --max-iterations to at least {more}" if more is not None else "")
    )
