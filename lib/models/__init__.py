"""Everything that knows transformers: where a model keeps its parts, how to look inside, how to prune."""
