"""The HTTP front. Validates, stores, answers; computes nothing."""
