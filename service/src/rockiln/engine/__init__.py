"""The row loop and what it needs. With ``platforms`` the only place where torch is imported."""
