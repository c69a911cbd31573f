"""The parts of `bench dispatch`."""
