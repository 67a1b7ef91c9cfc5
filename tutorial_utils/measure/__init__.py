"""Honest numbers: time, quality, the deployment table, and recordings of other machines."""
