"""Pure decisions: no Redis, no HTTP, no clock, no random source; all of those come in as arguments."""
