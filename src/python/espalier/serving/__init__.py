"""The online prediction server: a core that knows no transport, with gRPC and HTTP around it."""
