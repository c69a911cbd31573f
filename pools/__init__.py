"""Pools: which exist, which nodes are in them, who leads."""
