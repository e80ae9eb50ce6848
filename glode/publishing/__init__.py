"""From a finished model to a repository on the Hub."""
