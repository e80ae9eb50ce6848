"""Who labels a target text besides our own models: token classifiers, GLiNER models and chat models behind an endpoint."""
