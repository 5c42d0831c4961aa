"""OpenTDF 4.3.0 (and, for reading, 4.2.2): manifest, policy, binding, segments, container."""
