"""The folder of pictures: new ones get the next number, old ones are listed and handed out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdc.serve.messages import Answer, Refused

if TYPE_CHECKING:
    from sd_runtime import GeneratedImage

_TYPES: Final = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
#: Names that lead nowhere else: no separators, no leading dot.
_NAME: Final = re.compile(r"[\w-][\w.\- ]{0,200}", re.ASCII)
_NUMBER: Final = re.compile(r"(\d{5,})-")
#: Pictures that are listed, the newest ones.
_SHOWN: Final = 200
#: Settings that the page shows, and puts into its form again.
_FACTS: Final = (
    "prompt",
    "negative_prompt",
    "seed",
    "rng",
    "num_inference_steps",
    "guidance_scale",
    "schedule_type",
    "width",
    "height",
)


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pictures in ``folder``; links and folders in it are none."""

    folder: Path

    def add(self, drawn: GeneratedImage) -> str:
        """Save as ``00012-SEED.png``, the web UI's form; the file's name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(found[1]) for path in self._files() if (found := _NUMBER.match(path.name))]
        name = f"{max(numbers, default=0) + 1:05d}-{drawn.settings.seed}.png"
        drawn.save(self.folder / name)
        return name

    def listed(self) -> list[dict[str, Any]]:
        """Names and settings, the newest first."""
        newest = sorted(self._files(), key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        return [{"name": path.name, "settings": _settings(path)} for path in newest[:_SHOWN]]

    def file(self, name: str) -> Answer:
        """The picture of that name.

        Raises:
            Refused: there is none; nothing but pictures of the folder is handed out.
        """
        path = self.folder / name
        if not _NAME.fullmatch(name) or not _is_picture(path):
            raise Refused(HTTPStatus.NOT_FOUND, f"expected a picture of the gallery, got {name!r}")
        return Answer(HTTPStatus.OK, _TYPES[path.suffix.lower()], path.read_bytes())

    def _files(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (
                path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and _is_picture(path)
            )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _TYPES and path.is_file() and not path.is_symlink()


def _settings(path: Path) -> dict[str, Any] | None:
    """Those that the page shows; None in a picture of others."""
    from sd_runtime import ImageTextError, read_settings
    from sd_schedulers import sampler_name

    try:
        found = read_settings(path)
    except ImageTextError:
        return None
    facts = {name: getattr(found, name) for name in _FACTS}
    return {**facts, "sampler": sampler_name(found.scheduler) or found.scheduler}
