"""Addresses of servers: one spelling each, so that an allowlist is a comparison of texts."""

import ipaddress
from urllib.parse import urlsplit

from envelock.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def origin(url: str) -> str:
    """Scheme, host and port of *url*, in one spelling.

    SECURITY: what this accepts may be compared as text. Anything that parsers read in two ways is
    refused: user information, a fragment, backslashes, white space, characters beyond ASCII, a host
    with a trailing dot, port zero.

    Raises:
        ConfigError: Not a plain http(s) URL.
    """
    plain_text = url.isascii() and url.isprintable() and not set(url) & set("\\@# %?")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        plain_text = False
    if not plain_text or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"{url[:200]!r} is not a plain address of a key access server")
    if parts.hostname.endswith(".") or port == 0:
        raise ConfigError(f"{url[:200]!r} is not a plain address of a key access server")
    default = 443 if parts.scheme == "https" else 80
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or default}"


def private_origin(url: str) -> str:
    """The origin of a server that is shown tokens or secrets: https, or http on loopback.

    Raises:
        ConfigError: Anything else, which others on the way could read.
    """
    found = origin(url)
    if found.startswith("http:") and urlsplit(found).hostname not in LOOPBACK:
        raise ConfigError(
            f"{found} is not https", hint="secrets are sent by https, or by http on loopback only"
        )
    return found


def is_loopback(address: str) -> bool:
    """Whether an IP address in text, as a socket tells it, is this machine's own."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
