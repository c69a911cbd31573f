"""Use-cases of pools: generating as the leader, following as anyone."""
