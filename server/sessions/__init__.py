"""Life of clients as the leader watches it: heartbeats and their failures."""
