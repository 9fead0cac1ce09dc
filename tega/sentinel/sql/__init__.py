"""The sink for SQL databases, through SQLAlchemy."""
