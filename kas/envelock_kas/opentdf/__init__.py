"""The OpenTDF side of the KAS: Connect framing, and its messages as `envelock_formats.wire`."""
