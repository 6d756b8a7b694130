"""Where jobs run: processes of this machine. The database is the truth; an engine only places and restarts workers."""
