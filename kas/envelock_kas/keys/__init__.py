"""Key paths, versions, states, and the registry that the ledger's topic `key` amounts to."""
