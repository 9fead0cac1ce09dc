"""tega-sentinel: tables of a SQL database, or another tree, kept in step with etcd or tega.

`engine.Sentinel` moves what a `source.Source` tells into a `sink.Sink`. Neither knows of the other.
`mapping` says, without any I/O, which row a key gives.
"""
