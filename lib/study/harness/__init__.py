"""The papers' benchmarks, on a model of one's own."""
