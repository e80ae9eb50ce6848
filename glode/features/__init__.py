"""Labelled words -> windows -> batches."""
