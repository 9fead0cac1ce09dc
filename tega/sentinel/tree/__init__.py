"""Sinks that are trees: etcd and tega, mirrored key by key."""
