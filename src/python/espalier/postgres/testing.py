"""What tests and benchmarks need of PostgreSQL."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict


def variables(dsn: str) -> dict[str, str]:
    """The environment variables that name a database to our programs, as `settings` reads them."""
    known = conninfo_to_dict(dsn)
    return {
        "POSTGRES_HOST": str(known["host"]),
        "POSTGRES_PORT": str(known["port"]),
        "POSTGRES_USER": str(known["user"]),
        "POSTGRES_PASSWORD": str(known["password"]),
        "POSTGRES_DB": str(known["dbname"]),
    }
