"""A bundle as apps read one: compiled models under the file names that they look for."""

from sdc.resources.apps import Seen, as_apps_see
from sdc.resources.hub import HubRepository, write_hub_repository
from sdc.resources.names import ResourcesError
from sdc.resources.swift import (
    CompiledResource,
    Resources,
    compile_linked,
    write_all,
    write_each_size,
    write_resources,
)

__all__ = [
    "CompiledResource",
    "HubRepository",
    "Resources",
    "ResourcesError",
    "Seen",
    "as_apps_see",
    "compile_linked",
    "write_all",
    "write_each_size",
    "write_hub_repository",
    "write_resources",
]
