"""Moves a whole state from the leader to a member whose log ends before the leader's begins: chunks, pulled by the member."""
