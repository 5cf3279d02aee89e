"""Which networks of a bundle are in memory, and when they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import RLock
from typing import Final

from sd_bundle import Bundle, BundleComponent, Role

from sd_runtime import memory
from sd_runtime.model import LoadedModel, Model

#: What every step may need at once.
_TOGETHER: Final[tuple[Role, ...]] = ("denoiser", "controlnet", "t2i_adapter", "preview_decoder")


class Models:
    """The networks of ``bundle``: each loads when it is first asked for, and stays until it is released.

    Where memory is short, those that wait are let go before the next one loads; with ``reduce_memory`` the
    denoiser, by far the largest, is never kept beside others but those that steer it or show how far it is.
    What is let go is freed as soon as nobody draws with it: callers hold a network only while they run it.

    Threads may share it; networks load one at a time.
    """

    def __init__(
        self, bundle: Bundle, open_model: Callable[[BundleComponent], Model], *, reduce_memory: bool = False
    ) -> None:
        """Nothing is loaded; ``open_model`` loads one network."""
        self.bundle, self.reduce_memory = bundle, reduce_memory
        self._open_model = open_model
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = RLock()  # held while a network loads, never while one runs

    def of_bundle(self, bundle: Bundle) -> Models:
        """The same networks in other forms, those of ``bundle``: of each, one form is kept at a time."""
        other = Models(bundle, self._open_model, reduce_memory=self.reduce_memory)
        other._loaded, other._lock = self._loaded, self._lock
        return other

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the components that are kept."""
        return tuple(self._loaded)

    def only(self, role: Role) -> LoadedModel:
        """The network with ``role``.

        Raises:
            MissingComponentError: the bundle has none, or several.
        """
        return self.of(self.bundle.only(role))

    def of(self, component: BundleComponent) -> LoadedModel:
        """The network of ``component``."""
        with self._lock:
            kept = self._loaded.get(component.name)
            if kept is not None and kept.component != component:  # in another form
                del self._loaded[component.name]
            if component.name not in self._loaded:
                self._make_room(component)
                self._loaded[component.name] = LoadedModel(component, self._open_model(component))
            return self._loaded[component.name]

    def release(self, roles: Iterable[Role] = ()) -> None:
        """Let go of the networks with ``roles``; of all of them if none is named."""
        wanted = frozenset(roles)
        with self._lock:
            for name, model in tuple(self._loaded.items()):
                if not wanted or model.component.role in wanted:
                    del self._loaded[name]

    def is_short_for_denoiser(self) -> bool:
        """Whether the denoiser has yet to be loaded and may not fit into what is left of the memory."""
        component = self.bundle.only("denoiser")
        return component.name not in self._loaded and memory.is_short_for(component, self.bundle)

    def forget(self, component: BundleComponent) -> None:
        """Let go of the network of ``component``."""
        with self._lock:
            self._loaded.pop(component.name, None)

    def _make_room(self, component: BundleComponent) -> None:
        """Let go of all where memory is short, or of what is not to be beside the denoiser."""
        if memory.is_short_for(component, self.bundle):
            self._loaded.clear()
            return
        roles = {name: model.component.role for name, model in self._loaded.items()}
        if self.reduce_memory and "denoiser" in (component.role, *roles.values()):
            kept = _TOGETHER if component.role in _TOGETHER else ()
            for name in [name for name, role in roles.items() if role not in kept]:
                del self._loaded[name]
