"""Published weights where there is no network: those fetched before, else an answer at once. Imports nothing."""

from __future__ import annotations

import http.client
import socket
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import SplitResult, unquote, urlsplit

PATIENCE = 8.0
"""Seconds that a proxy may take to answer."""


@contextmanager
def at_once() -> Iterator[str]:
    """Within, the client of timm's hub does not try again where its host cannot be reached; yields why not, or "".

    It retries for 45 s by itself, and has no setting for less but offline mode, in which it reads what was fetched
    before. So the way there is tried first: the address of the host, or the tunnel through the proxy that it uses.
    """
    try:
        from huggingface_hub import constants
    except ImportError:
        yield ""
        return
    reason = _blocked(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(reason)
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


def _blocked(endpoint: str) -> str:
    """Why a host cannot be reached, in a few words; "" where nothing is known to be in the way."""
    there = urlsplit(endpoint)
    host = there.hostname or ""
    proxies = urllib.request.getproxies()
    named = proxies.get(there.scheme) or proxies.get("all")
    if named is not None and not urllib.request.proxy_bypass(host):
        proxy = urlsplit(named if "//" in named else f"http://{named}")
        return _closed(proxy, host, there.port or 443)
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return "there is no network"
    return ""


def _closed(proxy: SplitResult, host: str, port: int) -> str:
    """Why a proxy gives no way to a host; one that is not of http is only connected to."""
    name = f"{proxy.hostname}:{proxy.port}" if proxy.port else str(proxy.hostname)
    try:
        if proxy.scheme != "http":
            default = 443 if proxy.scheme == "https" else 1080
            socket.create_connection((proxy.hostname or "", proxy.port or default), PATIENCE).close()
            return ""
        known = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else None
        headers = {} if known is None else {"Proxy-Authorization": f"Basic {b64encode(known.encode()).decode()}"}
        connection = http.client.HTTPConnection(proxy.hostname or "", proxy.port or 80, timeout=PATIENCE)
        with closing(connection) as tunnel:
            tunnel.set_tunnel(host, port, headers=headers)
            tunnel.connect()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"the proxy {name} gives no way to {host} ({str(error) or type(error).__name__})"
    return ""
