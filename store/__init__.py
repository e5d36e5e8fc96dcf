"""The replicated state: what a log entry does to it, and its durable form. Knows neither event loop nor network."""
