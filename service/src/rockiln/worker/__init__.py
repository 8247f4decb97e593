"""The supervisor and what it says to its engine child. No torch here."""
