"""Values and decisions of pools: no framework, I/O, clock or chance."""
