"""Local and global servers: who leads which tree, and how the others follow."""
