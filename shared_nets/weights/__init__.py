"""Name maps between public checkpoints and ours."""
