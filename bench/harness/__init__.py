"""What the measures share: HTTP over unix sockets, engines, processes, tables."""
