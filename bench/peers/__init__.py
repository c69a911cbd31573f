"""Task queues that others use, run beside each other on one server: `python -m bench peers`."""
