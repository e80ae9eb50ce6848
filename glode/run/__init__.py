"""The parts of the command: arguments, corpora, backbone, the stages, report, publishing.

The one room of the package that stands above the trainer; run_crossner.py says what happens in which order.
"""
