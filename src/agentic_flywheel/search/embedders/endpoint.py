"""An OpenAI-compatible endpoint as an embedder: `POST {base_url}/embeddings`.

Invariant: nothing but `EmbedderError` leaves this module, no wait outlasts `TIMEOUT_SECONDS`, and the key stands in no
message. Vectors are brought to unit length here, whatever the service gives.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import (
    EmbedderBusy,
    EmbedderError,
    EmbedderGarbled,
    EmbedderRefused,
    EmbedderUnavailable,
)
from agentic_flywheel.search.embedders.named import unit_rows

if TYPE_CHECKING:
    import httpx2

    from agentic_flywheel.search.protocols import Matrix

DEFAULT_URL = "https://api.openai.com/v1"
#: A question waits far less (`similar.patience_seconds`); this is when a connection is given up.
TIMEOUT_SECONDS = 10.0
_QUOTED = 200
_PROBE = "Where can I see what was decided about the budget?"


class EndpointEmbedder:
    """A model of a service, asked over HTTP; its dimension is learnt from the first answer, when this is made.

    `base_url` may leave the `/v1` out. `key` may be empty (local servers want none).
    """

    calibration = ""
    #: Most texts in one request.
    at_once = 32

    def __init__(self, model: str, *, base_url: str = "", key: str = "", timeout: float = TIMEOUT_SECONDS) -> None:
        import httpx2

        self.name = f"openai:{model}"
        self.address = _endpoint(base_url or DEFAULT_URL)
        self._model = model
        self._key = key.strip()
        self._client: httpx2.Client | None = None
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            self._client = httpx2.Client(headers=headers, timeout=httpx2.Timeout(timeout))
            self.dimension = 0
            self.dimension = self.embed([_PROBE]).shape[1]
        except BaseException:
            self.close()
            raise
        seed = repr((self.address, model, self.dimension))
        self.fingerprint = hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One row of unit length per text. Raises `EmbedderError`."""
        import httpx2

        if self._client is None:
            raise EmbedderUnavailable("the embedder is closed", embedder=self.name)
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        try:
            reply = self._client.post(f"{self.address}/embeddings", json=body)
        except httpx2.TimeoutException as error:
            raise self._error(EmbedderUnavailable, "did not answer in time") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise self._error(EmbedderUnavailable, f"cannot be reached: {error}") from error
        if reply.status_code != 200:
            raise self._refusal(reply)
        try:
            rows = _rows(reply.json(), len(texts))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise self._error(EmbedderGarbled, f"gave no embeddings: {reply.text[:_QUOTED]!r}") from error
        return unit_rows(rows, len(texts), self.dimension, self.name)

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _refusal(self, reply: httpx2.Response) -> EmbedderError:
        try:
            said = reply.json()["error"]
            said = said.get("message", said) if isinstance(said, Mapping) else said
        except (ValueError, KeyError, TypeError):
            said = reply.text
        kinds: dict[int, type[EmbedderError]] = {401: EmbedderRefused, 403: EmbedderRefused, 429: EmbedderBusy}
        kind = kinds.get(reply.status_code, EmbedderUnavailable)
        return self._error(kind, f"answered with status {reply.status_code}: {str(said)[:_QUOTED]}", reply.status_code)

    def _error(self, kind: type[EmbedderError], what: str, status: int | None = None) -> EmbedderError:
        if self._key:
            what = what.replace(self._key, "***")
        passing = status is None or status == 429 or status >= 500
        return kind(
            f"{self.address} (model {self._model!r}) {what}",
            retry_after_seconds=30.0 if passing else 0.0,
            embedder=self.name,
            status=status,
        )


def _rows(answer: Any, count: int) -> list[Any]:
    """The vectors in the order of the texts: services may give them in another, and say so by `index`."""
    rows: list[Any] = [None] * count
    for place, item in enumerate(answer["data"]):
        rows[item.get("index", place)] = item["embedding"]
    if any(row is None for row in rows):
        raise ValueError("fewer vectors than texts")
    return rows


def _endpoint(base_url: str) -> str:
    """Where `/embeddings` hangs, without a login; a bare host gets the customary `/v1`."""
    base_url = re.sub(r"(?<=://)[^/@]*@", "", base_url.rstrip("/").removesuffix("/embeddings"))
    return base_url if re.search(r"[^:/]/", base_url) else f"{base_url}/v1"
