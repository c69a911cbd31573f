"""The published pool configuration in Redis."""
