"""Use-cases of dispatch over ports: sessions, placing jobs, delivery between instances."""
