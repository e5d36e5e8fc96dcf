"""The durable form of the state: one LMDB environment, written behind by one thread."""
