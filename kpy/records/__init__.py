"""Record batches and legacy message sets: reading, writing, compressing, converting and validating them.

Pure functions from bytes to bytes. Nothing here knows of topics, files, sockets or clocks.
"""
