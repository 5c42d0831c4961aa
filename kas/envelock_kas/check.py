"""Checks of a KAS before it starts: `python -m envelock_kas.check --data DIR --listen HOST:PORT`.

A scratch key is made in the custody, tried and removed again; nothing else is changed.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import aiohttp

from envelock_formats.errors import FormatError
from envelock_formats.wrap import UnwrapError
from envelock_kas.__main__ import custody_of, tls_of
from envelock_kas.custody import AES, Custody
from envelock_kas.errors import CustodyError, KasError
from envelock_kas.settings import (
    CustodySettings,
    KasSettings,
    require_algorithms,
    require_safe_address,
)
from envelock_service.findings import Findings
from envelock_service.oidc import CallerSettings, fetch_keys
from envelock_service.settings import FILE, DeploymentSettings, SettingsError, section

ASK_SECONDS = 5.0
CONTEXT = b"envelock/check/v1"
_EXPECTED = (
    SettingsError,
    KasError,
    FormatError,
    UnwrapError,
    OSError,  # and with it ssl.SSLError and TimeoutError
    aiohttp.ClientError,
    ImportError,
)


def main() -> int:
    """Check, and print what was found."""
    parser = argparse.ArgumentParser(prog="envelock_kas.check", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--listen", default="")
    asked = parser.parse_args()
    findings = Findings(*_EXPECTED)
    asyncio.run(check(findings, asked.data, asked.listen))
    findings.print()
    return 0


async def check(findings: Findings, data: Path, listen: str) -> None:
    """Check settings, address, TLS, custody and issuers of the data directory *data*."""
    file = data / FILE
    with findings.check("kas settings", "[kas], [custody] and [callers] are well-formed"):
        kas = section(file, "kas", KasSettings)
        custody = section(file, "custody", CustodySettings)
        callers = section(file, "callers", CallerSettings)
        deployment = section(file, "deployment", DeploymentSettings)
    if findings.found[-1].state == "fail":
        return
    host = (listen or kas.listen).rpartition(":")[0]
    with findings.check("address", f"{host} is loopback, or has TLS"):
        require_safe_address(kas, host)
    if kas.tls_cert_file is not None:
        with findings.check("tls", "certificate and key fit", "see tls_cert_file, tls_key_file"):
            tls_of(data, kas)
    await _check_custody(findings, data, custody, deployment, kas)
    for issuer in callers.issuers:
        hint = "see [callers] and the way to the issuer"
        with findings.check("issuer", f"{issuer.issuer}: its keys can be fetched", hint):
            async with asyncio.timeout(ASK_SECONDS):
                if not await fetch_keys(issuer.issuer):
                    raise SettingsError(f"{issuer.issuer} has no keys")
    if not callers.issuers:
        development = deployment.environment == "development"
        detail = "that of development, started with the rest" if development else "there is none"
        step = "" if development else "set issuers in [callers]"
        findings.add("issuer", "ok" if development else "fail", detail, step)


async def _check_custody(
    findings: Findings,
    data: Path,
    settings: CustodySettings,
    deployment: DeploymentSettings,
    kas: KasSettings,
) -> None:
    if settings.kind == "local" and not (data / settings.directory).is_dir():
        findings.add("custody", "ok", f"local: {settings.directory} is made at the first start")
        return
    hint = "see [custody]: module, token and PIN file"
    with findings.check("custody", f"{settings.kind}: a scratch key wraps and unwraps", hint):
        custody = custody_of(data, settings, deployment)
        try:
            require_algorithms(kas, custody)
            await _round_trip(custody)
        finally:
            await custody.aclose()


async def _round_trip(custody: Custody) -> None:
    """Make a key, wrap and unwrap with it, and remove it, whatever happens."""
    label = f"envelock-check:{os.urandom(8).hex()}:v1"
    [made] = await custody.make(label, [AES])
    try:
        secret = os.urandom(32)
        wrapped = await custody.wrap(made.handle, secret, CONTEXT)
        if await custody.unwrap(made.handle, wrapped, CONTEXT) != secret:
            raise CustodyError("it unwraps something else than was wrapped")
    finally:
        await custody.destroy(made.handle)


if __name__ == "__main__":
    sys.exit(main())
