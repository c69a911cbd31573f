"""The WebSocket edges: frames in and out, no rules."""
