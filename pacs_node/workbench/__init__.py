"""What people run by hand: the demonstration, training, evaluation, checks and tables."""
