"""Scenes of 24 x 24 visual tokens: world, words, recipe, training and calibration of the next embedded model."""
