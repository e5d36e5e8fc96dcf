"""What makes a server one of a cluster: its Raft connection, how it joins, and requests about members."""
