"""What was collected in a folder, so that an interrupted calibration goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from sd_bundle.drafts import replacing
from sd_mil import Constant, Program, Reference

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A folder with a file of arrays for each thing that was collected, as numpy's ``.npz``."""

    folder: Path

    def load(self, what: object) -> dict[str, Array] | None:
        """The arrays of ``what``, if they are there and whole."""
        try:
            with self._path(what).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile):  # not what was written
            return None

    def save(self, what: object, arrays: Mapping[str, Array]) -> None:
        """Write them whole or not at all.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        named: dict[str, Any] = dict(arrays)
        with replacing(self._path(what)) as draft, draft.open("wb") as file:
            np.savez(file, **named)

    def _path(self, what: object) -> Path:
        return self.folder / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}.npz"


def fingerprint(program: Program, inputs: Iterable[Mapping[str, Array]], **settings: object) -> bytes:
    """What is collected depends on: the program with its weights, the inputs, and the settings."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for operation in program.operations():
        digest.update(f"{operation.type} {operation.name} {operation.outputs}\n".encode())
        for parameter, arguments in operation.inputs.items():
            for argument in arguments:
                digest.update(
                    f"{parameter} {argument.name if isinstance(argument, Reference) else ''}\n".encode()
                )
                if isinstance(argument, Constant):
                    _add(digest, argument)
        for constant in operation.attributes.values():
            _add(digest, constant)
    for arrays in inputs:
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _add(digest: Any, constant: Constant) -> None:
    value = constant.value
    is_array = isinstance(value, np.ndarray | np.generic)
    digest.update(np.ascontiguousarray(value).data if is_array else repr(value).encode())
