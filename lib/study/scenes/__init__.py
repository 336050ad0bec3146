"""The embedded benchmark: pictures, questions, asking, measuring."""
