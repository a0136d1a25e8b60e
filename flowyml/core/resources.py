"""The resources that a step requests of its machine."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from flowyml.core.errors import DefinitionError

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["ResourceRequirements", "amount"]

_CPU = r"[0-9]+(\.[0-9]+)?|[0-9]+m"
_MEMORY = r"[0-9]+(\.[0-9]+)?([kKMGTPE]i?)?"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequirements:
    """CPU, memory and accelerators, in Kubernetes' notation.

    ``cpu`` counts cores (``"2"``, ``"0.5"``, ``"500m"``), ``memory`` bytes (``"4Gi"``, ``"512M"``), ``gpu`` whole
    devices. Source: Kubernetes, *Resource units*. Raises ``DefinitionError`` for any other notation.

    >>> ResourceRequirements(cpu="2", memory="4Gi").memory
    '4Gi'
    """

    cpu: str | None = None
    memory: str | None = None
    gpu: int = 0
    gpu_type: str | None = None

    def __post_init__(self) -> None:
        for name, pattern, example in (("cpu", _CPU, "2 or 500m"), ("memory", _MEMORY, "4Gi or 512M")):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise DefinitionError(f"{name}={value!r} is not a quantity. Write it like {example}.")
            if not re.fullmatch(pattern, str(value)):
                raise DefinitionError(f"{name}={value!r} is not a Kubernetes quantity. Write it like {example}.")
            object.__setattr__(self, name, str(value))
        gpu: object = self.gpu  # callers without a type checker pass any type
        if isinstance(gpu, bool) or not isinstance(gpu, int) or gpu < 0:
            raise DefinitionError(f"gpu={self.gpu!r} is not a number of devices. Use a whole number, 0 or more.")

    @property
    def gpu_resource(self) -> str:
        """The name of the device in Kubernetes: a ``gpu_type`` with a slash, else NVIDIA's.

        >>> ResourceRequirements(gpu=1, gpu_type="amd.com/gpu").gpu_resource
        'amd.com/gpu'
        """
        return self.gpu_type if self.gpu_type and "/" in self.gpu_type else "nvidia.com/gpu"

    @property
    def gpu_labels(self) -> dict[str, str]:
        """The labels of a node with such a GPU: for a model of NVIDIA's, the one that its feature discovery writes.

        >>> ResourceRequirements(gpu=1, gpu_type="NVIDIA-A100").gpu_labels
        {'nvidia.com/gpu.product': 'NVIDIA-A100'}
        """
        is_model = self.gpu and self.gpu_type and "/" not in self.gpu_type
        return {"nvidia.com/gpu.product": str(self.gpu_type)} if is_model else {}

    @classmethod
    def largest(cls, several: Iterable[ResourceRequirements | None]) -> ResourceRequirements | None:
        """Return the resources that suffice for each of several requests, one at a time; None if there is no request.

        >>> two = ResourceRequirements(cpu="500m", memory="1Gi"), ResourceRequirements(cpu="1", memory="900M", gpu=1)
        >>> ResourceRequirements.largest(two)
        ResourceRequirements(cpu='1', memory='1Gi', gpu=1, gpu_type=None)
        """
        needs = [need for need in several if need is not None]
        if not needs:
            return None
        return cls(
            cpu=max((need.cpu for need in needs if need.cpu), key=amount, default=None),
            memory=max((need.memory for need in needs if need.memory), key=amount, default=None),
            gpu=max(need.gpu for need in needs),
            gpu_type=next((need.gpu_type for need in needs if need.gpu_type), None),
        )

    @classmethod
    def coerce(
        cls, value: ResourceRequirements | Mapping[str, object] | None, *, stacklevel: int = 2
    ) -> ResourceRequirements | None:
        """Convert the dict notation of 0.x, with its deprecation warning."""
        if value is None or isinstance(value, ResourceRequirements):
            return value
        if not isinstance(value, Mapping):
            raise DefinitionError(f"resources={value!r}: use ResourceRequirements(cpu=…, memory=…, gpu=…).")
        warnings.warn(
            "Dict-style resources will be removed in 2.0. Use ResourceRequirements("
            + ", ".join(f"{key}={item!r}" for key, item in value.items())
            + ").",
            DeprecationWarning,
            stacklevel=stacklevel,
        )
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise DefinitionError(
                f"resources has no {', '.join(map(repr, unknown))}. Known: {', '.join(sorted(known))}."
            )
        return cls(**value)  # type: ignore[arg-type]  # __post_init__ checks the values


def amount(quantity: str) -> Decimal:
    """Return a quantity as a number (source: Kubernetes, *Quantity*).

    >>> amount("500m"), amount("0.5Gi"), amount("4k")
    (Decimal('0.5'), Decimal('536870912.0'), Decimal('4000'))
    """
    from decimal import Decimal

    number = quantity.rstrip("mkKMGTPEi")
    unit = quantity[len(number) :]
    if unit == "m":
        return Decimal(number) / 1000
    base = 1024 if unit.endswith("i") else 1000
    return Decimal(number) * int(base ** " KMGTPE".index(unit[:1].upper() or " "))
