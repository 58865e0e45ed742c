"""How often similar questions are answered from memory, and how often wrongly: ours beside others (`--help`)."""
