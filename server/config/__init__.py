"""What an operator may configure: units, options and their checks."""
