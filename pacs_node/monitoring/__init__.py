"""What people and machines watch: logs, alerts, audit."""
