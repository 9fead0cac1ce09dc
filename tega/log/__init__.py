"""Where commits are kept: the contract, and the logs that fulfil it."""
