"""An append-only log and its proofs.

The log stores records as opaque canonical JSON, chained by hash and under one Merkle tree, whose
root it signs for every batch. It knows names that may be used once and numbers that fence, never
what they stand for.
"""
