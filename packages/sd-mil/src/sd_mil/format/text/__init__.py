"""MIL's own text, as ``model.mil`` of a compiled model has it.

::

    program(1.0)
    [buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "3404.16.1"}})]
    {
        func main<ios16>(tensor<fp16, [1, 4]> x) {
            tensor<fp16, []> two = const()[name = tensor<string, []>("two"), val = tensor<fp16, []>(0x1p+1)];
            tensor<fp16, [1, 4]> y = mul(x = x, y = two)[name = tensor<string, []>("y")];
        } -> (y);
    }

There are two dialects: the older writes scalars as tensors of no dimensions, the newer (``program(1.3)``) as
``fp16(0x1p+1)``. Values in weight.bin are ``BLOBFILE(path = ..., offset = ...)``.
"""

from sd_mil.format.text.parsing import parse_program
from sd_mil.format.text.printing import Dialect, print_program

__all__ = ["Dialect", "parse_program", "print_program"]
