"""What a study will need of memory, arithmetic and time, from its params.yaml alone: `python -m tasks.plan`."""
