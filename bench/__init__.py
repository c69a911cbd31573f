"""Benchmarks: each measures within one run, and quotes ratios, since machines are noisy."""
