"""LoRA files, of all the forms in which they are shared, merged while weights are read."""

from .bundled import with_bundled_embeddings
from .file import Lora
from .merge import with_loras

__all__ = ["Lora", "with_bundled_embeddings", "with_loras"]
