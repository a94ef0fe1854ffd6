"""PostgreSQL: connections, numbered migrations, and an embedded server for one machine."""
