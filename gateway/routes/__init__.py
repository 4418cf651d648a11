"""Route handlers: decode, call one function, return."""
