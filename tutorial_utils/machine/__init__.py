"""What this machine can run, and how to mend the rest."""
