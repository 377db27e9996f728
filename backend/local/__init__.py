"""`make run` and `make test` on a bare machine: the virtual environment, embedded servers and child processes."""
