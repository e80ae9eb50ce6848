"""Text on disk or on the Hub -> labelled words."""
