"""What a model says of itself in words, and that may be changed before it is saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from sd_mil.errors import MetadataError
from sd_mil.ir.ports import Description, Port
from sd_mil.ir.program import Package, Pipeline


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise MetadataError(f"expected a text for {what}, got {type(value).__name__}")
    return value


class _Texts(Mapping[str, str]):
    """Texts by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """A copy that may be changed."""
        self._texts = dict(texts)

    def __getitem__(self, name: str) -> str:
        if name not in self._texts:
            raise MetadataError(f"expected one of {list(self._texts)}, got {name!r}")
        return self._texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class Texts(_Texts, MutableMapping[str, str]):
    """The user-defined metadata.

    Raises:
        MetadataError: no such name (a KeyError, too), or something else than a text.
    """

    def __setitem__(self, name: str, text: str) -> None:
        self._texts[_text(name, "a name of metadata")] = _text(text, repr(name))

    def __delitem__(self, name: str) -> None:
        self[name]  # refuses a name that is none
        del self._texts[name]

    def __repr__(self) -> str:
        return repr(self._texts)


class FeatureTexts(_Texts):
    """What is said of each input, or of each output; which there are does not change.

    Raises:
        MetadataError: no such feature (a KeyError, too), or something else than a text.
    """

    def __setitem__(self, name: str, text: str) -> None:
        self[name]  # refuses a name that is none
        self._texts[name] = _text(text, repr(name))

    def __repr__(self) -> str:
        return f"Features({','.join(self)})"


@dataclass(slots=True)
class Metadata:
    """The texts of a description, as they stand."""

    short_description: str
    version: str
    author: str
    license: str
    user_defined: Texts
    inputs: FeatureTexts
    outputs: FeatureTexts

    @classmethod
    def of(cls, description: Description) -> Metadata:
        """Those that a model was read with."""
        return cls(
            short_description=description.short_description,
            version=description.version,
            author=description.author,
            license=description.license,
            user_defined=Texts(description.user_defined),
            inputs=FeatureTexts({port.name: port.description for port in description.inputs}),
            outputs=FeatureTexts({port.name: port.description for port in description.outputs}),
        )

    def applied(self, description: Description, *, ports: bool = True) -> Description:
        """The description with these texts, those of ports only if ``ports``; itself if they are its own."""
        changed = replace(
            description,
            short_description=self.short_description,
            version=self.version,
            author=self.author,
            license=self.license,
            user_defined=dict(self.user_defined),
        )
        if ports:
            inputs = _described(description.inputs, self.inputs)
            changed = replace(changed, inputs=inputs, outputs=_described(description.outputs, self.outputs))
        return description if changed == description else changed

    def described(self, model: Package | Pipeline, function: str | None) -> Package | Pipeline:
        """The model with these texts, those of ports where ``function`` has them; itself if unchanged."""
        if isinstance(model, Pipeline) or not model.descriptions:
            changed = self.applied(model.description)
            return model if changed is model.description else replace(model, description=changed)
        default = model.program.default_function
        own = function or default
        functions = {name: self.applied(one, ports=name == own) for name, one in model.descriptions.items()}
        if all(functions[name] is one for name, one in model.descriptions.items()):
            return model
        return replace(model, description=functions[default], descriptions=functions)


def _described(ports: tuple[Port, ...], texts: Mapping[str, str]) -> tuple[Port, ...]:
    return tuple(replace(port, description=texts[port.name]) for port in ports)


class Text:
    """One text of a model's metadata, as an attribute that is read and assigned.

    Raises:
        MetadataError: something else than a text is assigned.
    """

    def __init__(self, doc: str) -> None:
        """``doc`` is the attribute's docstring."""
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Any, owner: type | None = None) -> str:
        return self if model is None else getattr(model._metadata, self._name)  # type: ignore[return-value]

    def __set__(self, model: Any, value: str) -> None:
        setattr(model._metadata, self._name, _text(value, self._name))
