"""Models that other tools converted: their folders found, understood, and made a bundle.

::

    folder ─ layout.py ─► which file is which network ─ facts.py ─► what their ports say, and what was told
           ─ adopt.py ─► a bundle: packages linked, tokenizer and scheduler completed, manifest written

Layouts: apple/ml-stable-diffusion's output folder, the ``Resources`` of its Swift package, and the trees of
the Hub's ``apple/coreml-*`` repositories, which hold either of them.
"""

from sd_runtime.foreign.adopt import Adopted, adopt, open_any
from sd_runtime.foreign.facts import Unstated
from sd_runtime.foreign.layout import Found, find_networks

__all__ = ["Adopted", "Found", "Unstated", "adopt", "find_networks", "open_any"]
