"""Compression that knows what a weight's inputs are: Hessians, and palettes that keep the outputs close."""

from sd_compress.calibration.collecting import (
    Collecting,
    Statistics,
    collect_activations,
    collect_hessians,
    collect_statistics,
)
from sd_compress.calibration.devices import Device, check_device
from sd_compress.calibration.gains import measure_gains
from sd_compress.calibration.hessians import Hessian
from sd_compress.calibration.inputs import Patches, inputs_of
from sd_compress.calibration.palettes import Calibrated, improved

__all__ = [
    "Calibrated",
    "Collecting",
    "Device",
    "Hessian",
    "Patches",
    "Statistics",
    "check_device",
    "collect_activations",
    "collect_hessians",
    "collect_statistics",
    "improved",
    "inputs_of",
    "measure_gains",
]
