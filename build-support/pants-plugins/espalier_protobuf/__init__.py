"""Protobuf and gRPC code generation for Pants from grpcio-tools."""
