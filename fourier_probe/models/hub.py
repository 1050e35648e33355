"""Published weights where there is no network: those fetched before, else an answer at once. Imports nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def at_once() -> Iterator[bool]:
    """Within, the client of timm's hub does not try again where its host has no address; yields whether it has one.

    It retries for 45 s by itself, and has no setting for less but offline mode, in which it reads what was fetched
    before. Behind a proxy, which looks up names in our place, it is left as it is.
    """
    try:
        from huggingface_hub import constants
    except ImportError:
        yield True
        return
    reachable = _behind_proxy() or _has_address(urlsplit(constants.ENDPOINT).hostname or "")
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable
    try:
        yield reachable
    finally:
        constants.HF_HUB_OFFLINE = before


def _behind_proxy() -> bool:
    return any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False
