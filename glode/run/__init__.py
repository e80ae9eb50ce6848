"""The parts of the command: arguments, corpora, backbone, report."""
