"""The state of everything that lasts: studies, jobs, deliveries, alerts, audit. The database is the truth; processes come and go."""
