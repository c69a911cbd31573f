"""Dispatch: sessions, jobs, reservations, delivery between instances."""
