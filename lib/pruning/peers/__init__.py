"""The neighbours: other published ways to drop visual tokens, one file each, as compositions of the shared pieces.

Each keeps exactly k distinct tokens in raster order; where a method's own rule would give more or fewer, its row says
how it was made comparable.
"""
