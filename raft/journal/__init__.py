"""The Raft log on disk: entries, term and vote, written in groups, each group synced before the next is begun."""
