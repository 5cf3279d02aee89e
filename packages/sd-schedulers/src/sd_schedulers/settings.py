"""A diffusers ``scheduler_config.json``, read with types.

One config serves every sampler, as in diffusers: ``EulerDiscreteScheduler.from_config(pndm.config)`` takes
the keys it knows, and its own default for a key that is missing or null. So defaults live with each sampler,
and a key that only another scheduler reads changes nothing. A key that no scheduler reads is refused, since
nobody can say what it would change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sd_schedulers.errors import ScheduleError

#: What the samplers here read.
READ_KEYS = frozenset(
    [
        *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
        *("prediction_type", "rescale_betas_zero_snr", "variance_type"),
        *("timestep_spacing", "steps_offset", "timestep_type", "interpolation_type"),
        *("skip_prk_steps", "set_alpha_to_one", "clip_sample", "clip_sample_range", "thresholding"),
        *("use_karras_sigmas", "sigma_min", "sigma_max", "final_sigmas_type", "lambda_min_clipped"),
        *("use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas"),
        *("algorithm_type", "solver_order", "solver_type", "lower_order_final", "euler_at_final"),
        *("use_dynamic_shifting", "original_inference_steps", "timestep_scaling"),
    ]
)

#: What only other schedulers of the family read (UniPC, ...), or only beside a refused setting.
FOREIGN_KEYS = frozenset(
    [
        *(
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "flow_shift",
            "time_shift_type",
            "shift_terminal",
        ),
        *("predict_x0", "disable_corrector", "solver_p"),
    ]
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Typed access to a config; null counts as missing."""

    values: Mapping[str, object]

    def __post_init__(self) -> None:
        """Refuse keys that no scheduler has; ``_class_name`` and other underscored keys are notes."""
        unknown = sorted(key for key in self.values if key not in READ_KEYS | FOREIGN_KEYS and key[:1] != "_")
        if unknown:
            raise ScheduleError(
                f"expected the keys of a diffusers scheduler config, got {', '.join(unknown)}: "
                "remove what does not belong, or use a noise schedule of Stable Diffusion's family"
            )

    def get(self, key: str, default: object) -> object:
        """The value as it stands."""
        value = self.values.get(key)
        return default if value is None else value

    def choice(self, key: str, default: str, allowed: Collection[str]) -> str:
        """One of ``allowed``."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise ScheduleError(f"expected {key} of {', '.join(allowed)}; got {value!r}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ScheduleError(f"expected {key} to be true or false, got {value!r}")
        return value

    def number(self, key: str, default: float, *, low: float, high: float) -> float:
        """A finite number between ``low`` and ``high``, both included."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ScheduleError(f"expected {key} to be a finite number, got {value!r}")
        if not low <= value <= high:
            raise ScheduleError(f"expected {key} from {low} to {high}, got {value}")
        return float(value)

    def count(self, key: str, default: int, *, low: int, high: int) -> int:
        """A whole number between ``low`` and ``high``, both included."""
        value = self.number(key, default, low=low, high=high)
        if value != int(value):
            raise ScheduleError(f"expected {key} to be a whole number, got {value}")
        return int(value)

    def require(self, key: str, *allowed: object, sampler: str) -> None:
        """Refuse a setting that ``sampler`` cannot follow: it must be missing or one of ``allowed``."""
        value = self.values.get(key)
        if value is not None and value not in allowed:
            shown = " or ".join(repr(choice) for choice in allowed)
            raise ScheduleError(
                f"expected {key} {shown} for sampler {sampler!r}, got {value!r}: not supported"
            )
