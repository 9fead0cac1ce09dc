"""HTTP: one file a resource, over a thin layer that turns bytes into calls and values into
bytes."""
