"""Run one bundle on one study; what every door calls."""
