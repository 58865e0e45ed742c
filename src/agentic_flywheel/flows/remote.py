"""What the clients of services behind HTTP have in common: their credential and their connections.

Invariant: see `flows.wire`. A client says where its service is and how it shows a key; this asks the environment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import ClassVar
from urllib.parse import quote

from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.wire import Wire, short_pause


class RemoteClient(ABC):
    """A flow of a service, with the API key of the environment variable that the flow's `api_key_env` names, else of
    `usual_key_variable`, else none."""

    usual_key_variable: ClassVar[str]

    def __init__(
        self,
        spec: FlowSpec,
        *,
        environ: Mapping[str, str],
        timeout: timedelta,
        check_timeout: timedelta,
        pause: Callable[[], timedelta] = short_pause,
    ) -> None:
        self.spec = spec
        self._key_variable = spec.api_key_env or self.usual_key_variable
        key = environ.get(self._key_variable, "").strip()
        self._has_key = bool(key)
        self._id = quote(spec.id, safe="")
        self._credentials = self._shown(key) if key else {}
        self._wire = Wire(
            spec,
            base_url=self._service(spec),
            headers=self._credentials,
            secret=key,
            timeout=timeout,
            check_timeout=check_timeout,
            pause=pause,
        )

    @staticmethod
    @abstractmethod
    def _service(spec: FlowSpec) -> str:
        """The address that paths of the service's API are put behind."""

    @staticmethod
    def _shown(key: str) -> dict[str, str]:
        """The headers that carry a key."""
        return {"authorization": f"Bearer {key}"}

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._wire.aclose()
