"""What a job would take on machines of other sizes, by replays of representative accelerators."""
