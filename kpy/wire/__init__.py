"""Kafka's wire format: one generated module for each API, what they share (primitives), and the list of all (apis).

Generated from protocol/ by `python -m protocol.generate`. Import the module of an API when it is first needed: each
stands alone.
"""
