"""The report: a static site made of the executed notebooks, the register, the tables and the figures.

`pages` writes the sources, Sphinx with MyST-NB turns them into pages and executes nothing; ``python -m lib report`` does both.
"""
