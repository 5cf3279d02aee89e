"""What pictures can be drawn from: one file for each task."""

from typing import Final

from sd_runtime.tasks.image_to_image import IMAGE_TO_IMAGE
from sd_runtime.tasks.inpainting import BLENDED_INPAINTING, INPAINTING
from sd_runtime.tasks.instruct import INSTRUCT
from sd_runtime.tasks.task import Begun, Given, Task
from sd_runtime.tasks.text_to_image import TEXT_TO_IMAGE

#: Those that every pipeline knows.
TASKS: Final[tuple[Task, ...]] = (
    TEXT_TO_IMAGE,
    IMAGE_TO_IMAGE,
    BLENDED_INPAINTING,
    INPAINTING,
    INSTRUCT,
)

__all__ = ["TASKS", "Begun", "Given", "Task"]
