"""The command line: its grammar, its texts and the entry point of the console command."""
