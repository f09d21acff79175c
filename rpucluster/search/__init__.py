"""The best plan of a job on a cluster: every legal plan is bounded, and replayed while a bound leaves it a chance."""
