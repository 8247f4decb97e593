"""rocm, cuda and cpu behind one interface."""
