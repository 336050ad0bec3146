"""All that reads a clock or counts operations."""
