"""A long trial: a global server and two local ones, clients of every kind, and faults."""
