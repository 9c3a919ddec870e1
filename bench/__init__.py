"""Benchmarks: figures with ratios taken in one run, each ending with one JSON line."""
