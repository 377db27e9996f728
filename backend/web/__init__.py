"""What every HTTP request and every WebSocket handshake passes before it reaches an edge."""
