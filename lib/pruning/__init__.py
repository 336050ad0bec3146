"""Visual-token pruning as pure tensor functions: cues, selections, merging, and the methods built from them.

Nothing here knows a model, a file or a benchmark: every function sees the tensors of visual tokens it is
given.
"""
