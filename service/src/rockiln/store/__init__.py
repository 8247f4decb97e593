"""The only coupling between api and worker: jobs in a database, pictures in files."""
