"""The registry's state in Redis, and the ground every other store stands on."""
