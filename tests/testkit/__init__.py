"""What the tests share. A package of its own name, as dependencies install packages called `tests`; `pythonpath` finds it."""
