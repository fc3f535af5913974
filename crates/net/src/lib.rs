//! What the kernel is told about networks, and the name server.
