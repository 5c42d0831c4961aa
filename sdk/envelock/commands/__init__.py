"""The commands of `envelock` that the SDK itself has; each is loaded when it is used."""
