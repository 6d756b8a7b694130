"""Someone who reads the page: requests to the application as the server would pass them on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from starlette.types import ASGIApp


@dataclass
class Reader:
    """Asks ``app`` as a peer with an address, with headers of its own; faults of the application are answers, as with a server."""

    app: ASGIApp
    host: str = "127.0.0.1:11180"
    address: str = "127.0.0.1"
    headers: Mapping[str, str] = field(default_factory=dict)

    def get(self, path: str, auth: tuple[str, str] | None = None, **headers: str | bytes) -> httpx.Response:
        """Return the answer to a GET; ``headers`` with underscores for dashes."""
        return asyncio.run(self._ask("GET", path, auth, {name.replace("_", "-"): value for name, value in headers.items()}))

    def post(self, path: str) -> httpx.Response:
        """Return the answer to a POST."""
        return asyncio.run(self._ask("POST", path, None, {}))

    async def _ask(self, method: str, path: str, auth: tuple[str, str] | None, headers: Mapping[str, str | bytes]) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, client=(self.address, 50_000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{self.host}") as client:
            return await client.request(method, path, auth=auth, headers=[*self.headers.items(), *headers.items()])  # type: ignore[arg-type]
