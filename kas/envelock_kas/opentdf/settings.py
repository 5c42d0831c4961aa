"""Section `[opentdf]`: what stock clients are offered."""

from urllib.parse import urlsplit

import msgspec


class OpenTdfSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is offered to clients that know nothing of us.

    `base_tenant` is whose key they get who ask without a token, or whose objects have no attribute
    with a key of its own; empty stands for the one tenant that there is, and for none where there
    are several. `browser_origins` are the origins of pages that may call from a browser, such as
    `https://app.example`; `*` is any.
    """

    base_tenant: str = ""
    browser_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.browser_origins:
            parts = urlsplit(origin)
            plain = not (parts.path or parts.query or parts.fragment or parts.username)
            if origin != "*" and not (parts.scheme in {"http", "https"} and parts.netloc and plain):
                raise ValueError(f"browser_origins: {origin!r} is not an origin")
