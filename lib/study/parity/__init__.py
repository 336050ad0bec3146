"""Released rules restated slowly in NumPy, one file a method, and held against the library's methods.

Each file names the release, restates its rule in double precision for one sample, and lists the `CASES` to try. The rules
share no code with the library, so that an error has to be made twice to pass unseen.
"""
