"""The pure core: immutable trees, their histories, and what a transaction makes of them.

Nothing here knows of clocks, files, sockets or loops; ids and times are passed in.
"""
