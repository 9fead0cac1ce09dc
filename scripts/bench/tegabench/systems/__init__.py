"""The servers that are measured: tega, the bare handler, and the peers found on the machine."""
