"""Seconds, memory and operations of each attention implementation, beside torch's own, in one run.

    uv run python tools/bench_attention.py [--tokens 4096] [--keys N] [--heads 8] [--head-dim 40] [--batch 2]
        [--implementations ORIGINAL SDPA]

Each side runs in a process of its own, one after the other. Time is the median of the repeats; memory is
how far the process grew over what it held with its inputs; operations are the calls in the graph of
``torch.export``, those that only move axes included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import apart

TORCH = "torch"


def attention_called(name: str, chunk_size: int) -> Callable[..., Any]:
    """A function of q, k, v in BC1S and the number of heads."""
    from functools import partial

    from sd_attention import IMPLEMENTATIONS
    from torch.nn.functional import scaled_dot_product_attention

    if name == TORCH:
        return scaled_dot_product_attention
    function: Callable[..., Any] = IMPLEMENTATIONS[name]
    chunked = partial(function, chunk_size=chunk_size) if name == "SPLIT_EINSUM_V2" else function
    return lambda q, k, v, heads: chunked(q, k, v, None, heads)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds, bytes and operations of one implementation in this process."""
    import torch

    torch.set_num_threads(options.threads)
    shape = {"q": options.tokens, "k": options.keys, "v": options.keys}
    width = options.heads * options.head_dim
    if options.only == TORCH:
        tensors = [torch.randn(options.batch, options.heads, n, options.head_dim) for n in shape.values()]
        arguments = tuple(tensors)
    else:
        tensors = [torch.randn(options.batch, width, 1, n) for n in shape.values()]
        arguments = (*tensors, options.heads)
    attend = attention_called(options.only, options.chunk_size)
    before = peak_bytes()
    seconds = []
    with torch.inference_mode():
        for _ in range(options.repeats):
            start = time.perf_counter()
            attend(*arguments)
            seconds.append(time.perf_counter() - start)
    grown = peak_bytes() - before
    return {
        "seconds": statistics.median(seconds),
        "bytes": grown,
        "operations": operations(attend, arguments),
    }


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def operations(attend: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Calls in the exported graph."""
    import torch

    class Attend(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any) -> Any:
            return attend(q, k, v, *arguments[3:])

    program = torch.export.export(Attend(), arguments[:3], strict=False)
    return sum(node.op == "call_function" for node in program.graph.nodes)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in [
        ("tokens", 4096),
        ("heads", 8),
        ("head-dim", 40),
        ("batch", 2),
        ("chunk-size", 512),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keys", type=int, help="as many as tokens unless given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--implementations", nargs="+", help="all of sd-attention's unless given")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.keys = options.keys or options.tokens
    return options


def measured_apart(name: str, arguments: list[str]) -> dict[str, float]:
    """The measures of one implementation, taken in a process of its own."""
    measures: dict[str, float] = json.loads(apart.python(__file__, *arguments, "--only", name).printed)
    return measures


def main() -> None:
    """Print a table, torch first."""
    options = parse()
    if options.only:
        print(json.dumps(measure(options)))
        return
    from sd_attention import IMPLEMENTATIONS

    print(
        f"batch {options.batch}, {options.tokens} queries, {options.keys} keys, {options.heads} heads of "
        f"{options.head_dim}, float32, {options.threads} threads"
    )
    print(f"{'':16}{'seconds':>10}{'x torch':>10}{'MiB':>10}{'operations':>12}")
    reference = None
    for name in (TORCH, *(options.implementations or IMPLEMENTATIONS)):
        got = measured_apart(name, sys.argv[1:])
        reference = reference or got["seconds"]
        row = (got["seconds"], got["seconds"] / reference, got["bytes"] / 2**20, got["operations"])
        print(f"{name:16}{row[0]:10.3f}{row[1]:10.2f}{row[2]:10.1f}{row[3]:12}")


if __name__ == "__main__":
    main()
