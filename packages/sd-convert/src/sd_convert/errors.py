"""What can go wrong on the way from a checkpoint to a bundle.

SdConvertError
├── CheckpointError               the checkpoint cannot be used as it is
│   ├── CheckpointNotFoundError     no such folder or repository on the hub, or the hub cannot be reached
│   ├── NotACheckpointError         something is there, but it is no checkpoint in diffusers format
│   ├── IncompleteCheckpointError   a file is missing, truncated, or only a git-lfs pointer
│   ├── UnsafeWeightsError          the weights are there only as pickle, which runs code when it is read
│   ├── VariantError                several variants and no rule to choose, or not the one asked for
│   └── WeightsMismatchError        names, shapes or dtypes of the weights contradict the config
├── UnsupportedArchitectureError  a well-formed checkpoint of a kind that is not converted
├── OptionsError                  options that contradict each other or the checkpoint
├── LikeError                     a checkpoint and the bundle that its own is to be like differ
├── LimitError                    the machine's memory or disk does not suffice
│   ├── NotEnoughMemoryError        memory could not be had
│   └── NotEnoughSpaceError         the disk is full, or a file would be larger than is allowed
├── MissingLibrariesError         torch and what goes with it are needed, and not installed
├── LoweringError                 the exported graph has an operation that is not lowered
└── VerificationError             the bundle and the checkpoint cannot be compared at all
"""

from __future__ import annotations


class SdConvertError(ValueError):
    """Base of every error that sd-convert raises on bad input."""


class CheckpointError(SdConvertError):
    """The checkpoint cannot be used as it is."""


class CheckpointNotFoundError(CheckpointError):
    """No such folder, no such repository on the hub, or the hub cannot be reached."""


class NotACheckpointError(CheckpointError):
    """Something is there, but it is no checkpoint in diffusers format."""


class IncompleteCheckpointError(CheckpointError):
    """A file is missing, truncated, or only a git-lfs pointer."""


class UnsafeWeightsError(CheckpointError):
    """The weights are there only as pickle (``.bin``, ``.ckpt``), which runs code when it is read."""


class VariantError(CheckpointError):
    """Several variants of the weights and no rule to choose one, or not the one that was asked for."""


class WeightsMismatchError(CheckpointError):
    """Names, shapes or dtypes of the weights contradict the config."""


class UnsupportedArchitectureError(SdConvertError):
    """A well-formed checkpoint of a kind that is not converted: config key, value, what is supported."""


class OptionsError(SdConvertError):
    """Options that contradict each other or the checkpoint."""


class LikeError(SdConvertError):
    """A checkpoint whose weights do not fit the programs of a bundle: the first difference."""


class LimitError(SdConvertError):
    """The machine's memory or disk does not suffice."""


class NotEnoughMemoryError(LimitError):
    """Memory could not be had."""


class NotEnoughSpaceError(LimitError):
    """The disk is full, or a file would be larger than is allowed."""


class MissingLibrariesError(SdConvertError):
    """A program that is not kept, or a comparison with torch, where torch is not installed."""


class LoweringError(SdConvertError):
    """The exported graph has an operation, or a form of one, that is not lowered."""


class VerificationError(SdConvertError):
    """The bundle and the checkpoint cannot be compared at all."""
