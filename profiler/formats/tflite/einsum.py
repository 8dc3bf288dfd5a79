"""Einstein sums as TFLite's products of matrices (https://onnx.ai/onnx/operators/onnx__Einsum.html)."""

from __future__ import annotations

import math

from profiler.formats.tflite.ordered import NotInTflite, Steps, Stored


def einsum(steps: Steps, equation: str, operands: list[Stored]) -> Stored:
    """The sum of one or two tensors, whose axes are letters. Raises `NotInTflite` for more, and where letters repeat or are dots.

    Letters of both tensors that the sum keeps are those of a batch of matrices, and those that it does not keep are summed up by
    the product; letters of one tensor alone are rows or columns, or are summed up before.
    """
    read, _, made = equation.replace(" ", "").partition("->")
    letters = read.split(",")
    if "->" not in equation or "." in equation or len(operands) > 2 or any(len(set(word)) < len(word) for word in (*letters, made)):
        raise NotInTflite(f"is {equation}")
    for place, word in enumerate(letters):
        elsewhere = {*made, *"".join(letters[:place] + letters[place + 1 :])}
        if alone := [axis for axis, letter in enumerate(word) if letter not in elsewhere]:
            operands[place] = steps.reduced("SUM", operands[place], alone, keep=False)
            letters[place] = "".join(letter for letter in word if letter in elsewhere)
    sizes = {letter: size for word, x in zip(letters, operands, strict=True) for letter, size in zip(word, x.shape, strict=True)}
    if len(operands) == 1:
        return steps.transposed(operands[0], [letters[0].index(letter) for letter in made])
    one, two = letters
    batch, summed = [x for x in one if x in two and x in made], [x for x in one if x in two and x not in made]
    rows, columns = [x for x in one if x not in two], [x for x in two if x not in one]
    matrices = []
    for word, x, parts in ((one, operands[0], (batch, rows, summed)), (two, operands[1], (batch, summed, columns))):
        shape = (*(sizes[letter] for letter in batch), *(math.prod(sizes[letter] for letter in part) for part in parts[1:]))
        matrices.append(steps.reshaped(steps.transposed(x, [word.index(letter) for part in parts for letter in part]), shape))
    product = steps.multiplied(*matrices)
    order = [*batch, *rows, *columns]
    return steps.transposed(steps.reshaped(product, tuple(sizes[letter] for letter in order)), [order.index(x) for x in made])
