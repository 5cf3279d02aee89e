"""Passes as MIL text: a function in, a pass, a function out."""

from dataclasses import replace

from sd_mil import Constant, print_program
from sd_mil.errors import PackageError
from sd_mil.format.text import parse_program


class NoWeights:
    """The weight file of programs whose constants all stand in the text."""

    def constant(self, kind, blob, where):
        raise PackageError(f"expected no weight file, got {blob} for {where}: {kind}")


def parsed(function):
    """``(inputs) { operations } -> (outputs);`` as a program."""
    return parse_program(f"program(1.3) {{ func main<ios18>{function} }}", NoWeights())


def printed(program):
    """The program's text, with what passes store for a weight file in it."""
    body = program.main.body
    operations = tuple(map(_inline, body.operations))
    main = replace(program.main, body=replace(body, operations=operations))
    return print_program(replace(program, functions={**program.functions, "main": main}))


def assert_rewrites(rewriting, before, after):
    """The pass makes ``after`` of ``before``, and keeps what it promises."""
    assert printed(rewriting.checked(parsed(before))) == printed(parsed(after))


def assert_leaves_alone(rewriting, text):
    assert_rewrites(rewriting, text, text)


def _inline(operation):
    attributes = {name: _unstored(value) for name, value in operation.attributes.items()}
    inputs = {name: tuple(map(_unstored, given)) for name, given in operation.inputs.items()}
    return replace(operation, attributes=attributes, inputs=inputs)


def _unstored(argument):
    return replace(argument, stored=0) if isinstance(argument, Constant) else argument
