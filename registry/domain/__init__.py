"""Values, tables and decisions of membership: no framework, I/O, clock or chance."""
