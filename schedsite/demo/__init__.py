"""`make run`: the whole system on one machine, with simulated nodes and sessions."""
