"""Sections `[kas]` and `[custody]` of the settings file."""

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from envelock_kas.algorithms import OfflineAlgorithm
from envelock_kas.custody import EC, RSA, Custody, require_held
from envelock_kas.errors import RefusedKeyError
from envelock_kas.guard import GuardSettings
from envelock_kas.keys.budget import MAX_WRAPS, RANGE
from envelock_kas.keys.template import TemplateError, check_template
from envelock_service.settings import SettingsError

DAY_SECONDS = 86_400
MIN_MAX_WRAPS = 256 * RANGE  # else workers would have no range left for each other


class KasSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one KAS is known, what it binds to, and what it pins.

    `url` stands in every manifest that is sealed for this KAS, so it must outlive ports and
    restarts. `kas_aliases` are addresses of servers that this one has taken over: their files name
    them still, and clients of ours bring those files here. `ledger_key` is the verifier key of the
    ledger, `pdp_keys_file` the JWK set of the PDP's public keys; `subject_key_file` holds the
    secret under which subjects are named in fences. `algorithms` are those of keys that first use
    makes: one key for each, and clients that do not say otherwise seal to the first. `max_wraps` is
    how often one version of a symmetric key wraps before its path is rotated. Paths are relative to
    the data directory. Beyond loopback the KAS wants TLS, its own or that of a proxy in front.
    """

    id: str = "envelock-kas"
    url: str = "http://127.0.0.1:8080"
    kas_aliases: tuple[str, ...] = ()
    listen: str = "127.0.0.1:8080"
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    behind_proxy: bool = False
    ledger_key: str = ""
    pdp_issuer: str = "envelock-pdp"
    pdp_keys_file: str = "pdp/jwks.json"
    subject_key_file: str = "secrets/subjects.key"
    max_wraps: Annotated[int, msgspec.Meta(ge=MIN_MAX_WRAPS, le=MAX_WRAPS)] = MAX_WRAPS
    template: str = "{tenant}:{dataset}:{epoch:%Y-%m}"
    algorithms: tuple[OfflineAlgorithm, ...] = (EC, RSA)
    guard: GuardSettings = GuardSettings()

    def __post_init__(self) -> None:
        try:
            check_template(self.template)
        except TemplateError as error:
            raise ValueError(f"template: {error}") from error
        if not self.algorithms or len(set(self.algorithms)) != len(self.algorithms):
            raise ValueError("algorithms: at least one, and each once")
        _require_url("url", self.url)
        for alias in self.kas_aliases:
            _require_url("kas_aliases", alias)
        if len({self.url, *self.kas_aliases}) <= len(self.kas_aliases):
            raise ValueError("kas_aliases: each address once, and not that of url")


class CustodySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where keys live. For `pkcs11`: the module, the token's label, and the file with its PIN."""

    kind: Literal["local", "pkcs11"] = "local"
    directory: str = "keys"
    module: str = "/usr/lib/softhsm/libsofthsm2.so"
    token: str = "envelock"  # noqa: S105 the token's label, no secret
    pin_file: str = "secrets/hsm.pin"
    grace_days: int = 90
    deadline_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.grace_days <= 3650:  # noqa: PLR2004 ten years
            raise ValueError("grace_days is 0 to 3650")

    @property
    def grace_seconds(self) -> int:
        """How long a scheduled destruction can be cancelled."""
        return self.grace_days * DAY_SECONDS


def _require_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ValueError(f"{name}: {url!r} is not an http(s) URL")


def require_algorithms(settings: KasSettings, custody: Custody) -> None:
    """Refuse settings that have first use make keys of a kind that *custody* does not hold.

    Raises:
        SettingsError: The first of them.
    """
    try:
        require_held(custody, settings.algorithms)
    except RefusedKeyError as error:
        raise SettingsError(str(error), "leave it out of algorithms in [kas]") from error


def require_safe_address(settings: KasSettings, host: str) -> None:
    """Refuse to listen beyond loopback without TLS.

    Raises:
        SettingsError: Neither a certificate nor a proxy is configured, or the URL is not https.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError as error:
        raise SettingsError(f"listen: {host!r} is not an IP address") from error
    if loopback:
        return
    has_tls = settings.tls_cert_file is not None and settings.tls_key_file is not None
    if not has_tls and not settings.behind_proxy:
        raise SettingsError(
            f"listening on {host} needs TLS",
            "set tls_cert_file and tls_key_file in [kas], or behind_proxy = true",
        )
    if urlsplit(settings.url).scheme != "https":
        raise SettingsError(
            f"url {settings.url} is not https", "set url in [kas] to the https address of this KAS"
        )
