"""What an einsum equation of two operands means as a matrix product."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contraction:
    """Permutations around a batched matrix product.

    ``x`` goes to [batch…, row, inner], ``y`` to [batch…, inner, column], and the product
    [batch…, row, column] to the order that the equation asks for.
    """

    x_order: tuple[int, ...]
    y_order: tuple[int, ...]
    result_order: tuple[int, ...]

    @staticmethod
    def parse(equation: str) -> Contraction | None:
        """The contraction of ``equation``; None when it is not one matrix product.

        Recognised are two operands without repeated labels or ellipses, with exactly one label summed over,
        one that only the first operand has, one that only the second has, and any number of shared ones.

        Example: ``bkhc,bchq->bkhq`` -> x [b,h,k,c], y [b,h,c,q], product [b,h,k,q] -> [b,k,h,q].
        """
        terms = _terms(equation)
        if terms is None:
            return None
        x, y, result = terms
        batch = [label for label in result if label in x and label in y]
        row = [label for label in x if label in result and label not in y]
        column = [label for label in y if label in result and label not in x]
        inner = [label for label in x if label in y and label not in result]
        if not (len(row) == len(column) == len(inner) == 1) or {*row, *column, *batch} != set(result):
            return None
        if {*batch, *row, *inner} != set(x) or {*batch, *column, *inner} != set(y):
            return None
        product = [*batch, *row, *column]
        return Contraction(
            x_order=tuple(x.index(label) for label in [*batch, *row, *inner]),
            y_order=tuple(y.index(label) for label in [*batch, *inner, *column]),
            result_order=tuple(product.index(label) for label in result),
        )


def _terms(equation: str) -> tuple[str, str, str] | None:
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or len(terms) != 2:
        return None
    labels = (*terms, result)
    if any(not term.isalpha() or len(set(term)) != len(term) for term in labels):
        return None
    return terms[0], terms[1], result
