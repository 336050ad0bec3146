"""What a reader sees: figures, wording, a module a notebook, README, card, site."""
