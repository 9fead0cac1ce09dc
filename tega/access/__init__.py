"""Access control: who asks, and what the rules let them do where."""
