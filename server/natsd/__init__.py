"""Runs the nats-server that belongs to the product: finds it, configures it, keeps it alive."""
