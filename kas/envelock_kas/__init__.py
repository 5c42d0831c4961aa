"""The key access server: releases keys by decision, and never without a record."""

from envelock_kas.errors import KasError

__all__ = ["KasError"]
