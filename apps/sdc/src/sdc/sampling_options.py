"""The options of ``sdc generate`` that say how to sample; choices and defaults are the libraries' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from sdc import recipe_option

Command = TypeVar("Command", bound=Callable[..., Any])


class WithDefaults(click.Option):
    """An option whose help quotes sd-runtime's defaults, which are looked up when help is asked for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The help with the numbers filled in."""
        from sd_runtime import DEFAULTS

        record = super().get_help_record(ctx)
        return record and (record[0], record[1].format_map(DEFAULTS))


class NameOf(click.ParamType):  # type: ignore[type-arg] # generic in some releases of click only
    """One of the names that ``load`` gives, which help lists; the library refuses the others."""

    def __init__(self, name: str, load: Callable[[], Sequence[str]]) -> None:
        """Nothing is loaded."""
        self.name, self.load = name, load

    def get_metavar(self, *_: Any, **__: Any) -> str:
        """The names, as click's own choices have it."""
        return f"[{'|'.join(self.load())}]"


class Numbers(click.ParamType):  # type: ignore[type-arg] # as above
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        """Whole ones, or any."""
        self.kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Refuse other words."""
        try:
            return tuple(self.kind(word) for word in str(value).split(","))
        except ValueError:
            wanted = "whole numbers" if self.kind is int else "numbers"
            self.fail(f"expected {wanted} with commas between them, got {value!r}", param, ctx)


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several click options as one decorator, first one first in the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(decorators):
            command = option(command)
        return command

    return decorate


def _spacings() -> Sequence[str]:
    from sd_schedulers import SPACINGS

    return tuple(SPACINGS)


def schedulers() -> Sequence[str]:
    """Their names."""
    from sd_schedulers import SCHEDULERS

    return tuple(SCHEDULERS)


def _guidance_methods() -> Sequence[str]:
    from sd_runtime import GUIDANCE

    return tuple(GUIDANCE)


sampling_options = options(
    click.option("--negative-prompt", default="", help="What not to draw."),
    click.option(
        "--prompt-syntax",
        type=click.Choice(["plain", "a1111"]),
        default="plain",
        show_default=True,
        help="a1111 reads the web UI's (word:1.2), (word), [word], escapes and BREAK; plain, none of it.",
    ),
    click.option(
        "--seed", "-s", default=93, show_default=True, help="Of the first image; the next take seed + 1, ..."
    ),
    click.option(
        "--variation-seed",
        type=int,
        help="Another seed, whose noise is mixed in; of several images this one counts up instead.",
    ),
    click.option("--variation-strength", type=float, help="How much of it: above 0 and up to 1."),
    click.option(
        "--rng",
        type=click.Choice(["numpy", "torch", "torch_cuda", "nvidia"]),
        callback=lambda _, __, value: "torch_cuda" if value == "nvidia" else value,
        default="numpy",
        show_default=True,
        help="Whose noise a seed stands for: numpy as Apple's pipeline, torch as diffusers on a CPU, "
        "torch_cuda (Apple's nvidia) as on an NVIDIA GPU.",
    ),
    click.option(
        "--num-inference-steps",
        "--step-count",
        cls=WithDefaults,
        type=int,
        help="Sampling steps; by default {steps:g}, LCM and TCD {consistency_steps:g}, or as a recipe says.",
    ),
    click.option(
        "--guidance-scale",
        cls=WithDefaults,
        type=float,
        help="How far to follow the prompt; up to 1 is off. By default {guidance_scale:g}, SDXL "
        "{sdxl_guidance_scale:g}, LCM {embedded_guidance_scale:g}, or as a recipe says.",
    ),
    click.option(
        "--guidance-method",
        type=NameOf("guidance method", _guidance_methods),
        help="How predictions are joined: classifier-free, adaptive projected (colours burn out less), or "
        "CFG-Zero*, or perpendicular to the prompt (Perp-Neg: a third prediction).",
    ),
    click.option(
        "--guidance-rescale",
        type=float,
        help="How much of the spread of guided predictions is brought back, 0 to 1.",
    ),
    click.option(
        "--guidance-start",
        type=float,
        help="From which share of the steps there is guidance; before it a step takes half the work.",
    ),
    click.option("--guidance-end", type=float, help="... and up to which."),
    click.option(
        "--measure-guidance",
        is_flag=True,
        help="With these two: draw each picture with guidance in all steps, too, and say how far apart they "
        "are, in dB, and what time was saved.",
    ),
    click.option(
        "--recipe",
        type=NameOf("recipe", recipe_option.names),
        help="How a model for few steps wants to be sampled: what is not stated itself. By default what the "
        "bundle asks for.",
    ),
    click.option(
        "--scheduler",
        type=NameOf("scheduler", schedulers),
        help="Or a class of diffusers (EulerDiscreteScheduler). By default the bundle's own.",
    ),
    click.option(
        "--spacing",
        type=NameOf("spacing", _spacings),
        help='How to spread the steps over the noise, or as the web UI calls it ("SGM Uniform"). By default '
        "as the bundle's scheduler config has it.",
    ),
    click.option(
        "--timesteps",
        type=Numbers(int),
        metavar="T,T,...",
        help="Where to evaluate instead: 999,749,499,249.",
    ),
    click.option(
        "--sigmas",
        type=Numbers(float),
        metavar="S,S,...",
        help="Where to stop instead, as noise levels; the last is where to end: 14.6,2.7,0.4,0.",
    ),
    click.option(
        "--eta",
        type=float,
        help="How much of the noise to add anew at each step, 0 to 1; by default the scheduler's own.",
    ),
    click.option(
        "--mu", type=float, help="Flow-matching models: the shift of the noise levels to a resolution."
    ),
)
