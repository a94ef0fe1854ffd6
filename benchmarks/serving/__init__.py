"""The prediction server side by side with what teams use in its place."""
