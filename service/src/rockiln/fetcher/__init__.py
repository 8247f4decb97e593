"""The only process with a route out: downloads the models that the store asks for."""
