"""Sockets and frames. It receives a dispatch callable and knows nothing of APIs."""
