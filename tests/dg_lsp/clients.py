"""Clients of a scripted engine, and what they ask."""

from contextlib import asynccontextmanager

from dg_lsp.client import EngineClient
from dg_lsp.settings import EngineSettings
from engine.request import InfillRequest

SETTINGS = EngineSettings(model="scripted", start_timeout_s=20)


@asynccontextmanager
async def opened(settings=SETTINGS, **options):
    client = EngineClient(settings, **options)
    try:
        yield client
    finally:
        await client.aclose()


def request(prefix="hi", **fields):
    return InfillRequest(prefix=prefix, **fields)
