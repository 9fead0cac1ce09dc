"""tega: a networked document database for the configuration and state of networks."""

__version__ = "1.0.0.dev0"
