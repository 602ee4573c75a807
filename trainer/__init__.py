"""Trains the reader: synthesis, pretraining, fitting to a site, evaluation and export."""
