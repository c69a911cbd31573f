"""Dispatch state in Redis: one Lua file per transition, grouped by hash tag."""
