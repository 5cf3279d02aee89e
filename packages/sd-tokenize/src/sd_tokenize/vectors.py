"""Tokens of textual inversion that stand for several vectors.

An embedding ``style`` of three vectors is the tokens ``style``, ``style_1`` and ``style_2``, as diffusers
names them; who writes ``style`` means all three.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def followers(ids: Mapping[str, int], added: Collection[str]) -> dict[int, tuple[int, ...]]:
    """For each added token with further vectors, its id and theirs.

    Example: ``followers({"a": 7, "a_1": 8, "b": 9}, ["a", "a_1", "b"])`` is ``{7: (8,)}``.
    """
    found: dict[int, tuple[int, ...]] = {}
    for token in added:
        more: list[int] = []
        while (name := f"{token}_{len(more) + 1}") in added:
            more.append(ids[name])
        if more:
            found[ids[token]] = tuple(more)
    return found


def expand(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], more: Mapping[int, tuple[int, ...]]
) -> tuple[list[int], list[int]]:
    """``ids`` with the further vectors of each token behind it, and where in the text each id begins.

    Vectors that the prompt spells out itself (``style style_1 style_2``) are not repeated.
    """
    result: list[int] = []
    starts: list[int] = []
    for place, (token, (start, _)) in enumerate(zip(ids, offsets, strict=True)):
        rest = more.get(token, ())
        spelled = tuple(ids[place + 1 : place + 1 + len(rest)]) == rest
        new = (token,) if spelled else (token, *rest)
        result += new
        starts += [start] * len(new)
    return result, starts
