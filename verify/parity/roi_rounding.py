"""How exactly a recorded RoI tells the box that it was drawn as."""

from itertools import product

from torch import Tensor

# How far a corner that is scaled back to the image may be from where Detectron had it, as a share of itself. Three
# roundings of up to 2^-24 each lie between: of its product with the scale, of 1 / scale, and of the product of both.
ROUNDING = 2.0**-22
# A recorded RoI is a gt box or a proposal of a file where their corners agree to this, in network pixels: float32 holds
# these to 1e-4, and no other box is as near.
SAME_ROI = 1e-3

Sides = tuple[float, ...]
# To which side each corner may have been rounded: whatever is cut at the edges of cells jumps there.
SIDES: tuple[Sides, ...] = tuple(product((-1.0, 1.0), repeat=4))
NO_SIDES: Sides = (0.0, 0.0, 0.0, 0.0)


def to_sides(boxes: Tensor, sides: Sides) -> Tensor:
    """Boxes `[R, 4]` with each corner `sides` of its rounding off where it is recorded."""
    return boxes + boxes * (ROUNDING * boxes.new_tensor(sides))
