"""ControlNets and adapters beside a checkpoint, to be converted with it; needs ``sd-controlnet[convert]``.

torch and diffusers load when a network is built.
"""

from .opening import with_controlnets, with_ip_adapters, with_t2i_adapters

__all__ = ["with_controlnets", "with_ip_adapters", "with_t2i_adapters"]
